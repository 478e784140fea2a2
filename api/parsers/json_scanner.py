"""JSON that comes in pieces: where a value ends, and where it stops being JSON (RFC 8259)."""

import re
from collections.abc import Callable

LONGEST_SCALAR = 4096
"""Characters of a number; Python itself converts no more than 4,300 digits."""

_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_BLANK = re.compile(r"[ \t\n\r]*")
_WORD = re.compile(r"[-+.0-9A-Za-z]*")
_SCALAR = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


class JsonScanner:
    """Follows one value: `done` behind its last character, `failed` before the first one that is not JSON.

    White space before the value is not part of it. A number outside of an object or array ends where something
    follows it.
    """

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._closers: list[str] = []
        self._word = ""
        self._hex_left = 0
        self._in_key = False
        self._state: Callable[[str, int], int] = self._value

    def scan(self, text: str, at: int) -> int:
        """Read on from `at`; return where the value, or what is JSON of it, ends in `text`."""
        while at < len(text) and not (self.done or self.failed):
            at = self._state(text, at)
        return at

    def _value(self, text: str, at: int) -> int:
        match text[at]:
            case "{":
                return self._open("}", self._first_key, at)
            case "[":
                return self._open("]", self._first_item, at)
            case '"':
                self._in_key, self._state = False, self._string
                return at + 1
            case character if character in "-0123456789tfn":
                self._word, self._state = "", self._scalar
                return at
            case character if self._closers and character in " \t\n\r":
                return _end(_BLANK, text, at)
        return self._fail(at)

    def _open(self, closer: str, state: Callable[[str, int], int], at: int) -> int:
        self._closers.append(closer)
        self._state = state
        return at + 1

    def _scalar(self, text: str, at: int) -> int:
        end = _end(_WORD, text, at)
        self._word += text[at:end]
        if len(self._word) > LONGEST_SCALAR:
            return self._fail(end)
        if end < len(text):
            if not _SCALAR.fullmatch(self._word):
                return self._fail(end)
            self._value_ends()
        return end

    def _string(self, text: str, at: int) -> int:
        at = _end(_PLAIN, text, at)
        match text[at : at + 1]:
            case "":
                return at
            case "\\":
                self._state = self._escape
            case '"' if self._in_key:
                self._state = self._colon
            case '"':
                self._value_ends()
            case _:
                return self._fail(at)
        return at + 1

    def _escape(self, text: str, at: int) -> int:
        if text[at] == "u":
            self._hex_left, self._state = 4, self._hex
        elif text[at] in '"\\/bfnrt':
            self._state = self._string
        else:
            return self._fail(at)
        return at + 1

    def _hex(self, text: str, at: int) -> int:
        if text[at] not in "0123456789abcdefABCDEF":
            return self._fail(at)
        self._hex_left -= 1
        if not self._hex_left:
            self._state = self._string
        return at + 1

    def _first_key(self, text: str, at: int) -> int:
        return self._close("}", text, at) or self._next_key(text, at)

    def _next_key(self, text: str, at: int) -> int:
        self._in_key = True
        return self._expect('"', self._string, text, at)

    def _colon(self, text: str, at: int) -> int:
        return self._expect(":", self._value, text, at)

    def _first_item(self, text: str, at: int) -> int:
        end = self._close("]", text, at)
        if not end and (at := _end(_BLANK, text, at)) < len(text):
            self._state = self._value
        return end or at

    def _next(self, text: str, at: int) -> int:
        closer = self._closers[-1]
        following = self._next_key if closer == "}" else self._value
        return self._close(closer, text, at) or self._expect(",", following, text, at)

    def _expect(self, character: str, state: Callable[[str, int], int], text: str, at: int) -> int:
        at = _end(_BLANK, text, at)
        if at == len(text):
            return at
        if text[at] != character:
            return self._fail(at)
        self._state = state
        return at + 1

    def _close(self, closer: str, text: str, at: int) -> int:
        """The position behind `closer` if that is next, otherwise 0."""
        at = _end(_BLANK, text, at)
        if text[at : at + 1] != closer:
            return 0
        self._closers.pop()
        self._value_ends()
        return at + 1

    def _value_ends(self) -> None:
        if self._closers:
            self._state = self._next
        else:
            self.done = True

    def _fail(self, at: int) -> int:
        self.failed = True
        return at


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where what `pattern` matches from `at` on ends; it may be nothing."""
    match = pattern.match(text, at)
    return match.end() if match else at
