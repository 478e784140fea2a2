"""Python literals that come in pieces, and what they are in JSON."""

import ast
import json
import re
import warnings

from api.parsers.calls import Calls, escaped
from api.parsers.tape import Script, Tape, stops_for

_PLAIN = {quote: re.compile(rf"[^\\{quote}]*") for quote in "'\""}
_BARE = re.compile(r"[^'\"()\[\]{},]*")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""}
_ESCAPES |= {character: character for character in "'\"\\"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_HEX = re.compile(r"[0-9a-fA-F]")
_CODE_POINTS = 0x110000
_CLOSERS = {"(": ")", "[": "]", "{": "}"}


class LiteralScanner:
    """Follows one value up to the comma or bracket behind it; `failed` where brackets do not match.

    What it is, is for `ast` to say.
    """

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._closers: list[str] = []
        self._quote = ""
        self._escaped = False

    def scan(self, text: str, at: int) -> int:
        """Read on from `at`; return where the value ends in `text`."""
        while at < len(text) and not (self.done or self.failed):
            at = self._in_string(text, at) if self._quote else self._outside(text, at)
        return at

    def _in_string(self, text: str, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        match = _PLAIN[self._quote].match(text, at)
        at = match.end() if match else at
        if at == len(text):
            return at
        self._escaped = text[at] == "\\"
        self._quote = self._quote if self._escaped else ""
        return at + 1

    def _outside(self, text: str, at: int) -> int:
        match = _BARE.match(text, at)
        at = match.end() if match else at
        if at == len(text):
            return at
        character = text[at]
        if character in ("'", '"'):
            self._quote = character
        elif character in _CLOSERS:
            self._closers.append(_CLOSERS[character])
        elif not self._closers:
            self.done = True
            return at
        elif character != ",":
            self.failed = self._closers.pop() != character
        return at + 1


def to_json(literal: str) -> str | None:
    """The JSON text of a literal, which may have JSON's words for true, false and null; None if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Escapes that Python does not know.
            tree = ast.parse(literal.strip(), mode="eval")
        value = ast.literal_eval(_JsonWords().visit(tree))
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


class _JsonWords(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        words = {"true": True, "false": False, "null": None}
        return ast.Constant(words[node.id]) if node.id in words else node


def stream_string(tape: Tape, calls: Calls, quote: str) -> Script[bool]:
    """A string, behind its opening quote, as JSON text of the open call; False if it is cut off or malformed."""
    stops = stops_for(frozenset((quote, "\\")))
    yield calls.arguments('"')
    while True:
        text, found = tape.upto(stops)
        if text:
            yield calls.arguments(escaped(text))
        tape.take(len(found))
        if found == quote:
            yield calls.arguments('"')
            return True
        if found:
            letter, digits = yield from _read_escape(tape)
            if text := _meaning(letter, digits):
                yield calls.arguments(text)
            if len(digits) < _HEX_DIGITS.get(letter, 0):
                return False
        elif tape.over:
            return False
        else:
            yield None


def _read_escape(tape: Tape) -> Script[tuple[str, str]]:
    """The letter of an escape, behind its backslash, and its digits; fewer than there should be if it is malformed."""
    letter = yield from tape.peek()
    tape.take(1)
    digits = ""
    while len(digits) < _HEX_DIGITS.get(letter, 0) and _HEX.fullmatch((yield from tape.peek())):
        digits += tape.take(1)
    return letter, digits


def _meaning(letter: str, digits: str) -> str:
    """The JSON text of an escape. What is none stands for itself."""
    if letter in _HEX_DIGITS and len(digits) == _HEX_DIGITS[letter] and int(digits, 16) < _CODE_POINTS:
        # Half of a surrogate pair becomes a character only with the other half, by JSON's own escapes.
        return json.dumps(chr(int(digits, 16)))[1:-1]
    return escaped(_ESCAPES.get(letter, f"\\{letter}{digits}"))
