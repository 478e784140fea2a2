"""Texts that repeat themselves with good reason: tables, code, data, songs, lists, drawings."""

import base64
import html.entities
import inspect
import json
import random
import textwrap
from collections.abc import Callable, Iterator
from encodings import cp1252
from pathlib import Path

from tests.repetition.text import Kind, Text, lines

ROOT = Path(__file__).resolve().parents[2]
# fmt: off
WORDS = [
    "river", "lamp", "garden", "winter", "copper", "market", "violin", "shadow", "engine", "harbour", "pepper",
    "window", "lantern", "forest", "silver", "bridge", "kettle", "orange", "thunder", "meadow", "pencil", "castle",
    "button", "feather", "mirror", "candle", "basket", "tunnel", "island", "saddle", "whistle", "ladder",
]
# fmt: on


def _prose(chance: random.Random, sentences: int) -> str:
    """Sentences of random words: nothing in them comes back by more than chance."""
    said = []
    for _ in range(sentences):
        words = [chance.choice([*WORDS, "the", "and", "of", "a"]) for _ in range(chance.randint(5, 14))]
        said.append(" ".join(words).capitalize() + ".")
    return " ".join(said)


REFRAIN = "And the bell rings low, and the bell rings high,\nand nobody knows where the swallows fly.\n"
VERSES = (
    "The miller went down to the edge of the weir\nto look for the moon that had drowned there last year.\n",
    "The widow has hung out her sheets in the rain;\nshe says that by Sunday they'll dry out again.\n",
    "A tinker came by with a cart full of keys,\nand not one of them opened a door on the quays.\n",
    "The children have painted the church tower red\nand told the old priest it had blushed at what he said.\n",
    "The ferryman sleeps with his oars on his knees,\nthe river goes by and does just as it please.\n",
    "The last of the summer went out with the tide;\nit left us its hat and the wind on our side.\n",
)


def _song() -> str:
    return (
        "\n".join(verse + REFRAIN * 2 for verse in VERSES)
        + "\n"
        + REFRAIN * 4
        + "La la la, la la la, la la la la la.\n" * 4
    )


def _bottles() -> str:
    return "".join(
        f"{n} bottles of beer on the wall, {n} bottles of beer. Take one down and pass it around, "
        f"{n - 1} bottles of beer on the wall.\n\n"
        for n in range(99, 0, -1)
    )


def _house() -> str:
    parts = [
        f"the {a} that {v} the {b}"
        for a, v, b in zip(WORDS, ("held", "hid", "lit", "broke") * 4, WORDS[1:], strict=False)
    ]
    return "\n".join("This is " + ",\n".join(reversed(parts[: n + 1])) + ".\n" for n in range(12))


def _hexdump(chance: random.Random | None, rows: int) -> str:
    def row(at: int) -> str:
        data = chance.randbytes(16) if chance else bytes(16)
        shown = "".join(chr(c) if 32 < c < 127 else "." for c in data)
        return f"{at * 16:08x}  {data.hex(' ', 2)}  |{shown}|"

    return lines(*map(row, range(rows)))


def _c_zeros(count: int) -> str:
    rows = ["    " + "0x00, " * 16] * (count // 16)
    return "static const uint8_t table[] = {\n" + lines(*rows) + "};\n"


def _log(chance: random.Random, rows: int) -> str:
    return lines(
        *(
            f"2024-03-{1 + n // 60:02d} 12:{n % 60:02d}:{chance.randint(0, 59):02d} INFO request handled in "
            f"{chance.randint(1, 900)} ms"
            for n in range(rows)
        )
    )


def _chess() -> str:
    rows = ["r n b q k b n r", "p p p p p p p p", *[". . . . . . . ."] * 4, "P P P P P P P P", "R N B Q K B N R"]
    board = lines(
        "  +-----------------+", *(f"{8 - n} | {row} |" for n, row in enumerate(rows)), "  +-----------------+"
    )
    return board * 6


def _dialogue(turns: int) -> str:
    return "".join(f'"Is it the {WORDS[n % len(WORDS)]}?" asked Ada.\n\n"No."\n\n' for n in range(turns))


def _multiplication() -> str:
    return lines(*(" ".join(f"{a * b:4d}" for b in range(1, 13)) for a in range(1, 13))) + lines(
        *(f"{a} x {b} = {a * b}" for a in range(1, 13) for b in range(1, 13))
    )


def _diff(chance: random.Random) -> str:
    return lines(*(f"{chance.choice('+- ')}    {chance.choice(WORDS)} = {chance.choice(WORDS)}()" for _ in range(120)))


def _life(chance: random.Random) -> str:
    return "\n".join(
        lines(*("".join(chance.choice("......#") for _ in range(40)) for _ in range(20))) for _ in range(4)
    )


def _stdlib() -> Iterator[tuple[str, str]]:
    yield "code: textwrap", inspect.getsource(textwrap)[:12_000]
    yield "code: a code page", inspect.getsource(cp1252)
    yield "code: html entities", inspect.getsource(html.entities)[:14_000]


def _documents() -> Iterator[tuple[str, str]]:
    for name in ("docs/guide.md", "docs/settings.md", "docs/glossary.md", "docs/messages.md", "pyproject.toml"):
        yield f"file: {name}", (ROOT / name).read_text(encoding="utf-8")[:14_000]


CHANCE = random.Random(6)
USERS = [{"id": n, "name": f"user{n}", "active": True, "role": "member"} for n in range(1, 81)]
CYRILLIC = "Вода в реке была холодной, и никто не хотел входить первым. "
MADE: dict[str, Callable[[], str]] = {
    "prose: random words": lambda: _prose(CHANCE, 150),
    "song with a refrain": _song,
    "song: 99 bottles": _bottles,
    "cumulative rhyme": _house,
    "la la la": lambda: "La " * 60 + "\n" + "na " * 80 + "hey!\n",
    "speech with an anaphora": lambda: "".join(f"I have a dream that the {w} will be free. " for w in WORDS),
    "litany": lambda: lines(*(f"Saint {w.capitalize()}, pray for us." for w in WORDS * 2)),
    "dialogue: no": lambda: _dialogue(40),
    "dialogue: yes and no": lambda: lines(*['"Yes."', '"No."'] * 20),
    "table with equal rows": lambda: "| door | state | count |\n|---|---|---|\n" + "| open | yes | 0 |\n" * 40,
    "table with equal rows, long": lambda: "| door | state | count |\n|---|---|---|\n" + "| open | yes | 0 |\n" * 80,
    "table, twenty columns, empty": lambda: lines("| " * 20 + "|", "|---" * 20 + "|", *["|   " * 20 + "|"] * 12),
    "table of months": lambda: lines(*(f"| {w} | {n} | {n * 7 % 31} | open |" for n, w in enumerate(WORDS * 3))),
    "empty check list": lambda: "- [ ] \n" * 40,
    "bullets that begin alike": lambda: lines(*(f"- You should always check the {w} before you leave." for w in WORDS)),
    "numbered list": lambda: lines(*(f"{n}. {_prose(CHANCE, 1)}" for n in range(1, 120))),
    "weeks of a plan": lambda: lines(*(f"Week {n}: run 3 times, rest 1 day." for n in range(1, 53))),
    "knitting": lambda: lines(*(f"Row {n}: knit 2, purl 2, repeat to end." for n in range(1, 61))),
    "zero matrix": lambda: "[" + ",\n ".join("[" + ", ".join("0" * 20) + "]" for _ in range(20)) + "]\n",
    "zero matrix of floats": lambda: "[" + ",\n ".join("[" + ", ".join(["0.0"] * 16) + "]" for _ in range(16)) + "]\n",
    "identity matrix": lambda: lines(*(" ".join("1" if a == b else "0" for b in range(24)) for a in range(24))),
    "C array of zeros": lambda: _c_zeros(256),
    "switch with 256 cases": lambda: lines(*(f'        case {n}: return "s{n}";' for n in range(256))),
    "unrolled loop, equal lines": lambda: "    sum += *p++;\n" * 64,
    "unrolled loop, counted": lambda: lines(*(f"    out[{n}] = in[{n}] * scale;" for n in range(160))),
    "nops": lambda: "        nop\n" * 64,
    "closing tags": lambda: "</div>\n" * 24,
    "closing brackets": lambda: "}" * 40 + ")" * 30 + ";\n",
    "minified JavaScript": lambda: ";".join(f"var {w}=function(t,e){{return t.{w}(e)}}" for w in WORDS * 3),
    "CSS steps": lambda: lines(*(f".m-{n} {{ margin: {n}px; }}" for n in range(120))),
    "HTML rows": lambda: "<tr><td>0</td><td>0</td><td>0</td></tr>\n" * 40,
    "SQL inserts": lambda: lines(*(f"INSERT INTO t (id, name) VALUES ({n}, '{w}');" for n, w in enumerate(WORDS * 3))),
    "YAML, equal items": lambda: "- name: web\n  image: nginx\n  replicas: 1\n" * 24,
    "JSON, equal objects": lambda: json.dumps([{"status": "ok", "value": 0, "tags": []}] * 60, indent=2),
    "JSON, users": lambda: json.dumps(USERS, indent=1),
    "JSON, minified zeros": lambda: json.dumps([0] * 400, separators=(",", ":")),
    "CSV, equal rows": lambda: "name,state,count\n" + "door,open,0\n" * 80,
    "CSV, figures": lambda: lines(*(f"{n},{CHANCE.random():.4f},{CHANCE.randint(0, 99)}" for n in range(200))),
    "hex dump": lambda: _hexdump(CHANCE, 80),
    "hex dump of zeros": lambda: _hexdump(None, 64),
    "base64": lambda: base64.b64encode(CHANCE.randbytes(3000)).decode(),
    "base64 of zeros": lambda: base64.b64encode(bytes(768)).decode(),
    "hex zeros": lambda: "00" * 512,
    "binary": lambda: " ".join(f"{ord(c):08b}" for c in _prose(CHANCE, 6)),
    "DNA": lambda: "".join(CHANCE.choice("ACGT") for _ in range(1500)),
    "DNA, repeats": lambda: "ATGGCG" + "CAG" * 70 + "CCGCCA",
    "counting, lines": lambda: lines(*map(str, range(1, 501))),
    "counting, commas": lambda: ", ".join(map(str, range(1, 501))),
    "counting in words": lambda: lines(*(f"{n} little {w}s" for n, w in enumerate(WORDS * 2))),
    "multiplication tables": _multiplication,
    "powers of two": lambda: lines(*(f"2^{n} = {2**n}" for n in range(120))),
    "one third": lambda: "1/3 = 0." + "3" * 150,
    "a googol": lambda: "1" + "0" * 100 + " or 1" + ",000" * 33,
    "laughter": lambda: "ha" * 60 + " that is so funny " + "ha " * 50 + "lol " * 20,
    "a long no": lambda: "N" + "o" * 200 + "!" * 40,
    "scream": lambda: "A" * 150 + "H" * 150,
    "rulers": lambda: "".join(f"{'=' * 100}\n{w}\n{'-' * 100}\n{_prose(CHANCE, 2)}\n" for w in WORDS[:10]),
    "box": lambda: "+" + "-" * 78 + "+\n" + ("|" + " " * 78 + "|\n") * 22 + "+" + "-" * 78 + "+\n",
    "solid block": lambda: ("#" * 60 + "\n") * 20,
    "chess boards": _chess,
    "game of life": lambda: _life(CHANCE),
    "progress bars": lambda: lines(*(f"[{'#' * n}{'.' * (40 - n)}] {n * 100 // 40}%" for n in range(41))),
    "drum tablature": lambda: ("HH|x-x-x-x-x-x-x-x-|\nSD|----o-------o---|\nBD|o-------o-------|\n\n") * 12,
    "chords": lambda: "C G Am F | " * 48,
    "morse": lambda: " ".join(CHANCE.choice(["...", "---", ".-", "-.", "/"]) for _ in range(300)),
    "blank lines": lambda: "Name:" + "\n" * 40 + "Address:" + "\n" * 40 + "Date: " + "_" * 80,
    "deep indentation": lambda: lines(*(" " * (2 * n) + "if x:" for n in range(60))),
    "spaces": lambda: "left" + " " * 300 + "right\n",
    "dots of a contents page": lambda: lines(*(f"{w} {'.' * 70} {n}" for n, w in enumerate(WORDS))),
    "log": lambda: _log(CHANCE, 150),
    "diff": lambda: _diff(CHANCE),
    "emoji": lambda: "🎉" * 50 + " congratulations! " + "👏" * 50,
    "Russian": lambda: CYRILLIC * 2 + "Потом кто-то засмеялся, и все побежали. " + CYRILLIC,
    "Chinese list": lambda: lines(*(f"{n}. 第{n}课：{w}" for n, w in enumerate(WORDS, 1))),
    "LaTeX rows": lambda: lines(*(f"{w} & $x_{{{n}}}$ & 0 & 0 \\\\ \\hline" for n, w in enumerate(WORDS * 2))),
    "tests alike": lambda: lines(*(f"def test_{w}():\n    assert run('{w}') == 0\n" for w in WORDS)),
    "SVG path": lambda: "M" + " ".join(f"L {CHANCE.randint(0, 99)} {CHANCE.randint(0, 99)}" for _ in range(200)),
    "quiz": lambda: lines(*(f"Q: Is {w} a noun?\nA: Yes, it is.\n" for w in WORDS)),
}


SAME_FOR_LONG = frozenset(
    {
        "song: 99 bottles",
        "la la la",
        "laughter",
        "dialogue: yes and no",
        "table with equal rows",
        "table, twenty columns, empty",
        "table with equal rows, long",
        "empty check list",
        "weeks of a plan",
        "knitting",
        "zero matrix",
        "zero matrix of floats",
        "C array of zeros",
        "switch with 256 cases",
        "unrolled loop, equal lines",
        "nops",
        "HTML rows",
        "YAML, equal items",
        "JSON, equal objects",
        "JSON, minified zeros",
        "CSV, equal rows",
        "hex dump of zeros",
        "base64 of zeros",
        "hex zeros",
        "box",
        "solid block",
        "chords",
        "drum tablature",
    }
)
"""Those that say the same so often that strict may end them."""


def texts() -> list[Text]:
    """All of them."""
    made = [(name, make()) for name, make in MADE.items()]
    return [
        Text(name, Kind.WANTED if name in SAME_FOR_LONG else Kind.FINE, text)
        for name, text in (*made, *_stdlib(), *_documents())
    ]
