"""Pieces of llguidance's Lark, out of which the formats make grammars (its docs/syntax.md)."""

import json
import re
from collections.abc import Mapping, Sequence

from api.parsers.parts import Tool

Schema = Mapping[str, object]

JSON_STYLE: Mapping[str, object] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As json.dumps writes it and models have learnt it. Where white space is free, a small model may never end it."""


class Speller:
    """Spells strings so that markers with an id are that one token, and everything else is text."""

    def __init__(self, marker_ids: Mapping[str, int]) -> None:
        self._ids = marker_ids
        ordered = sorted(marker_ids, key=len, reverse=True)
        self._markers = re.compile("|".join(map(re.escape, ordered)) if ordered else r"\Z.")

    def has_token(self, text: str) -> bool:
        """Whether there is a token in `text`."""
        return self._markers.search(text) is not None

    def __call__(self, text: str) -> str:
        """`text` as a sequence of tokens and string literals; nothing for no text."""
        items, at = [], 0
        for marker in self._markers.finditer(text):
            items += [_literal(text[at : marker.start()]), f"<[{self._ids[marker.group()]}]>"]
            at = marker.end()
        return " ".join(filter(None, [*items, _literal(text[at:])]))


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""


def json_object(schema: Schema) -> str:
    """What a tool's arguments may be, as JSON."""
    return json_value({"type": "object"} | dict(schema))


def json_value(schema: Schema, *, escapes: str = "") -> str:
    """What a value with this schema may be, as JSON in JSON_STYLE; if `escapes` are named, strings have no others."""
    options = {**JSON_STYLE, **({"json_allowed_escapes": escapes} if escapes else {})}
    return f"%json {json.dumps({**schema, 'x-guidance': options})}"


def one_of(rule: str, alternatives: Sequence[str]) -> str:
    """A rule with a line for each of its alternatives."""
    return f"{rule}: " + "\n    | ".join(alternatives) + "\n"


def call_rules(tools: Sequence[Tool], before: str, after: str, spell: Speller) -> str:
    """The rule `call`: a tool's arguments as JSON, between two texts in which NAME stands for the tool's name."""
    bodies = [
        f"{_named(before, tool.name, spell)} arguments_{number} {spell(after)}" for number, tool in enumerate(tools)
    ]
    arguments = [f"arguments_{number}: {json_object(tool.parameters)}\n" for number, tool in enumerate(tools)]
    return one_of("call", bodies) + "".join(arguments)


def _named(text: str, name: str, spell: Speller) -> str:
    return " /[0-9]+/ ".join(spell(piece.replace("NAME", name)) for piece in text.split("INDEX"))


def answer_rule(before: str, between: str, after: str, spell: Speller, *, parallel: bool) -> str:
    """The rule `answer`: a `call`, or several if `parallel`, between two texts and parted by a third."""
    more = f"({spell(between)} call)*" if parallel else ""
    # llguidance's lexer takes the longest literal: one that begins with another would hide it.
    shared = between if parallel and after.startswith(between) else ""
    end = [spell(shared), spell(after.removeprefix(shared))]
    return " ".join(filter(None, ["answer:", spell(before), "call", more, *end])) + "\n"
