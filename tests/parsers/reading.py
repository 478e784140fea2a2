"""Transcripts through a reader: in pieces, one character at a time, and whether the parts are well-formed."""

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from api.parsers.parts import CallArguments, CallClosed, CallOpened, Content, Part, Thinking, joined
from api.parsers.plain import Reader
from tests.parsers.golden import Called, Said

RANDOM_CUTS = 100
"""How often a transcript is cut at random places."""
DAMAGED = 3000
"""How many texts are made of the transcripts by mishaps."""
SENTINEL = "§"
_UNTOLD = re.compile(r'"(?:id|type)": "[^"]*"')
"""Members of a call that say nothing of what is called."""


def read(reader: Reader, pieces: Iterable[str]) -> list[Part]:
    """What the reader makes of the pieces. It never holds more than it was fed, and nothing in the end."""
    parts, fed = list[Part](), 0
    for piece in pieces:
        parts += reader.feed(piece)
        fed += len(piece)
        assert 0 <= reader.held <= fed
    parts += reader.finish()
    assert reader.held == 0
    return parts


def halves(text: str) -> Iterator[tuple[str, str]]:
    return ((text[:at], text[at:]) for at in range(len(text) + 1))


def at_random(text: str, seed: int) -> list[str]:
    """The text in two to a dozen pieces; some may be empty."""
    dice = random.Random(seed)
    places = sorted(dice.randint(0, len(text)) for _ in range(dice.randint(1, 11)))
    return [text[start:end] for start, end in pairwise([0, *places, len(text)])]


def ways(text: str) -> Iterator[Sequence[str]]:
    """Every way in which a transcript is cut: in two at every place, in single characters, at random."""
    yield from halves(text)
    yield tuple(text)
    yield from (at_random(text, seed) for seed in range(RANDOM_CUTS))


def with_sentinel(text: str, step: int) -> Iterator[str]:
    """The text with one more character at every `step`th place where what it says must show."""
    untold = {at for member in _UNTOLD.finditer(text) for at in range(member.start(), member.end() + 1)}
    return (text[:at] + SENTINEL + text[at:] for at in range(0, len(text) + 1, step) if at not in untold)


def damaged(texts: Sequence[str], seed: int) -> str:
    """One of the texts after up to three mishaps: something is missing, is there twice, or is from another text."""
    dice = random.Random(seed)
    text = dice.choice(texts)
    for _ in range(dice.randint(1, 3)):
        at = dice.randint(0, len(text))
        end = at + dice.randint(0, 25)
        other = dice.choice(texts)[dice.randint(0, 100) :][:40]
        text = dice.choice([text[:at] + text[end:], text[:end] + text[at:], text[:at] + other + text[at:]])
    return text


def shown(parts: Iterable[Part]) -> str:
    """All that a client gets to see of a reply."""
    seen = ""
    for part in parts:
        match part:
            case Thinking(text) | Content(text) | CallArguments(_, text):
                seen += text
            case CallOpened(name=name):
                seen += name
    return seen


def check_form(parts: Sequence[Part]) -> None:
    """Calls count up, are opened before their arguments, closed once, one after the other; no part is empty."""
    ids, opened = list[str](), False
    for part in parts:
        match part:
            case Thinking(text) | Content(text):
                assert text
            case CallOpened(index, id, name):
                assert (index, bool(id), bool(name)) == (len(ids), True, True)
                ids.append(id)
                opened = True
            case CallArguments(index, text):
                assert opened
                assert text
                assert index == len(ids) - 1
            case CallClosed(index):
                assert opened
                assert index == len(ids) - 1
                opened = False
    assert len(set(ids)) == len(ids)


def forgetting_ids(parts: Iterable[Part]) -> list[Part]:
    """The joined parts; ids may be made at random."""
    return [CallOpened(part.index, "", part.name) if isinstance(part, CallOpened) else part for part in joined(parts)]


def meaning(parts: Iterable[Part]) -> list[Said | Called]:
    """The parts as a transcript writes them: a closed call with its arguments parsed, an open one with their text."""
    found, name, arguments = list[Said | Called](), "", ""
    for part in joined(parts):
        match part:
            case Thinking(text):
                found.append(("thinking", text))
            case Content(text):
                found.append(("content", text))
            case CallOpened():
                name, arguments = part.name, ""
                found.append(("call", name, arguments, "open"))
            case CallArguments():
                arguments = part.text
                found[-1] = ("call", name, arguments, "open")
            case CallClosed():
                found[-1] = ("call", name, json.loads(arguments), "closed")
    return found


def lines(parts: Iterable[Said | Called]) -> list[str]:
    """One line of JSON for each part, so that true is not 1."""
    return [json.dumps(part, sort_keys=True, ensure_ascii=False) for part in parts]
