"""Whatever a family's grammar allows is a call to the family's own reader."""

import json
import random
from collections.abc import Mapping, Sequence

import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from api.parsers.family import ToolFamily
from api.parsers.format import Format
from api.parsers.parts import CallArguments, CallClosed, CallOpened, Content, Tool, joined
from api.parsers.reader import make_reader
from api.parsers.table import TOOL_FAMILIES, tool_family
from api.structure import grammar

FORMATS = [(name, format) for name, formats in TOOL_FAMILIES.items() for format in formats]
EVERY_FORMAT = pytest.mark.parametrize(("name", "format"), FORMATS, ids=[f"{n} {f.openers[-1]}" for n, f in FORMATS])
WORDS = 30
LONGEST = 1500
"""Bytes of a word; one that is longer is given up."""

POINT = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"], "additionalProperties": False}
TOOLS = (
    Tool("now", None, {"type": "object", "properties": {}, "additionalProperties": False}),
    Tool(
        "GET_INDEX",
        None,
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 30},
                "unit": {"enum": ["C", "F"]},
                "days": {"type": "integer"},
                "metric": {"type": "boolean"},
                "home": {"$ref": "#/$defs/point"},
                "away": {"anyOf": [{"$ref": "#/$defs/point"}, {"type": "null"}]},
                "points": {"type": "array", "items": {"$ref": "#/$defs/point"}, "maxItems": 3},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
            "$defs": {"point": POINT},
        },
    ),
    Tool("note", None, {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string"}}}}),
)


class ByteTokens:
    """One token for each byte, one for the end of text, and one for each of some markers."""

    bos_token_id = None
    eos_token_id = 256

    def __init__(self, markers: Sequence[str]) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)] + [b"<|end|>", *(marker.encode() for marker in markers)]
        self.special_token_ids = list(range(256, len(self.tokens)))
        self.ids = {marker: 257 + place for place, marker in enumerate(markers)}

    def spelt(self, marker: str) -> list[int]:
        return [self.ids[marker]] if marker in self.ids else list(marker.encode())

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def family_of(name: str, format: Format) -> ToolFamily:
    return ToolFamily(name, ((format, *(one for one in TOOL_FAMILIES[name] if one != format)),))


def matcher(
    family: ToolFamily, tokens: ByteTokens, *, parallel: bool = True, tools: Sequence[Tool] = TOOLS
) -> LLMatcher:
    answer = family.grammar(tools, parallel=parallel, marker_ids=tokens.ids)
    found = LLMatcher(LLTokenizer(TokenizerWrapper(tokens)), grammar(answer))
    assert not found.is_error(), f"{found.get_error()}\n{answer}"
    return found


def a_word(state: LLMatcher, tokens: ByteTokens, format: Format, dice: random.Random) -> str | None:
    """One word of the grammar, by chance, with a liking for what ends things; None if it would be too long."""
    ids: list[int] = []
    tags = [tokens.spelt(marker) for marker in sorted(format.markers) if marker.startswith("</")]
    while len(ids) < LONGEST:
        allowed = [id for id, bias in enumerate(state.compute_logit_bias()) if bias]
        if allowed == [tokens.eos_token_id] or (tokens.eos_token_id in allowed and dice.random() < 0.5):
            return b"".join(tokens.tokens[id] for id in ids).decode()
        tag = dice.choice(tags) if tags and dice.random() < 0.2 else []
        chosen = tag if tag and state.validate_tokens(tag) == len(tag) else [a_token(allowed, dice)]
        assert state.consume_tokens(chosen)
        ids += chosen
    return None


def a_token(allowed: Sequence[int], dice: random.Random) -> int:
    others = [id for id in allowed if id != ByteTokens.eos_token_id]
    ends = [id for id in others if chr(id) in '"}])\n' or id > ByteTokens.eos_token_id]
    text = [id for id in others if 32 <= id < 127]
    return dice.choice(ends if ends and dice.random() < 0.3 else text if len(others) > 8 else others)


def calls_in(family: ToolFamily, text: str, prompt_tail: str = "") -> list[tuple[str, Mapping[str, object]]]:
    """Names and arguments; everything in `text` must belong to calls that are complete."""
    reader = make_reader(tools=family, reasoning=None, offered=TOOLS, prompt_tail=prompt_tail)
    parts = joined([*reader.feed(text), *reader.finish()])
    assert not [part for part in parts if isinstance(part, Content)], (text, parts)
    opened = [part.name for part in parts if isinstance(part, CallOpened)]
    arguments = [json.loads(part.text) for part in parts if isinstance(part, CallArguments)]
    assert len(opened) == len(arguments) == len([part for part in parts if isinstance(part, CallClosed)]), text
    return list(zip(opened, arguments, strict=True))


def check_arguments(name: str, arguments: Mapping[str, object]) -> None:
    types: dict[str, type | tuple[type, ...]] = {
        "city": str,
        "unit": str,
        "days": (int, float),
        "metric": bool,
        "points": list,
        "tags": list,
    }
    if name == "GET_INDEX":
        assert {"city", "days"} <= arguments.keys() <= {*types, "home", "away"} - {"tags"}
        assert isinstance(arguments.get("home", {}), dict)
        assert isinstance(arguments.get("away"), dict | None)
        assert arguments.get("unit", "C") in ("C", "F")
    elif name == "now":
        assert arguments == {}
    for key, value in arguments.items():
        assert key not in types or isinstance(value, types[key]), arguments


@EVERY_FORMAT
@pytest.mark.parametrize("special", [False, True], ids=["markers as text", "markers as tokens"])
def test_every_word_of_a_grammar_is_read_as_the_call_it_is(name: str, format: Format, special: bool) -> None:
    family = family_of(name, format)
    tokens = ByteTokens(sorted(format.markers) if special else ())
    start, dice, called = matcher(family, tokens), random.Random(name), list[str]()
    for _ in range(WORDS):
        word = a_word(start.deep_copy(), tokens, format, dice)
        if word is not None:
            for tool, arguments in calls_in(family, word):
                check_arguments(tool, arguments)
                called.append(tool)

    assert set(called) == {"now", "GET_INDEX", "note"}


@EVERY_FORMAT
def test_calls_come_alone_unless_they_may_be_parallel(name: str, format: Format) -> None:
    family, tokens, dice = family_of(name, format), ByteTokens(()), random.Random(name)
    counts: dict[bool, set[int]] = {False: set(), True: set()}
    for parallel in (False, True):
        start = matcher(family, tokens, parallel=parallel, tools=TOOLS[:1])
        words = [a_word(start.deep_copy(), tokens, format, dice) for _ in range(20)]
        counts[parallel] = {len(calls_in(family, word)) for word in words if word is not None}

    assert counts[False] == {1}
    assert max(counts[True]) > 1


def test_a_string_in_tags_may_be_anything_but_the_tag_that_ends_it() -> None:
    family, tokens = tool_family("qwen", "<parameter=", ()), ByteTokens(())
    text = '<tool_call>\n<function=GET_INDEX>\n<parameter=city>\n"Köln" </p>\n\\ x\n</parameter>\n<parameter=days>\n3\n'
    text += "</parameter>\n</function>\n</tool_call>"
    start = matcher(family, tokens)

    assert start.consume_tokens(list(text.encode()))
    assert start.is_accepting()
    assert calls_in(family, text) == [("GET_INDEX", {"city": '"Köln" </p>\n\\ x', "days": 3})]
