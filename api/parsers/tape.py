"""The text of a reply as it comes in, read by scripts that wait where it breaks off."""

import re
from collections.abc import Generator, Iterable
from functools import lru_cache
from typing import Protocol, TypeAlias, TypeVar

from api.parsers.parts import Part

T = TypeVar("T")
Script: TypeAlias = Generator[Part | None, None, T]
"""Reads a Tape in straight lines; yields parts as they become certain, and None where it has to wait for more text."""

_SPACE = re.compile(r"\s*")


class Scanner(Protocol):
    """Something that knows where it ends."""

    done: bool
    failed: bool

    def scan(self, text: str, at: int) -> int:
        """Read on from `at`; return the position up to which `text` belongs to it."""
        ...


class Stops:
    """Finds the first of some strings in text that may break off within one.

    None of the strings may begin with another, or hold one inside; ending with another is allowed.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        ordered = sorted(filter(None, strings), key=lambda string: (len(string), string))
        self._longest = len(ordered[-1]) if ordered else 0
        self._whole = re.compile("|".join(map(re.escape, ordered)) if ordered else r"\Z.")
        self._begun = re.compile(f"(?:{'|'.join(_beginnings(string) for string in ordered)})\\Z")

    def find(self, text: str, at: int) -> tuple[int, str]:
        """Where the first string is, and which; or where one may have begun at the end of `text`, and ''."""
        if whole := self._whole.search(text, at):
            return whole.start(), whole.group()
        begun = self._begun.search(text, max(at, len(text) - self._longest + 1)) if self._longest else None
        return (begun.start() if begun else len(text)), ""


def _beginnings(string: str) -> str:
    """A pattern for every proper beginning of `string`; the empty one too where it has a single character."""
    pattern = ""
    for character in reversed(string[:-1]):
        pattern = re.escape(character) + (f"(?:{pattern})?" if pattern else "")
    return pattern


@lru_cache(maxsize=256)
def stops_for(strings: frozenset[str]) -> Stops:
    """The Stops of these strings; readers of one family share them."""
    return Stops(strings)


class Tape:
    """Text that was fed and not read yet. Reading can be undone back to a mark.

    Every step costs as much as the text it takes, however small the pieces are that the text comes in.
    """

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._kept: list[str] | None = None
        self._kept_length = 0
        self.ended = False
        """There will be no more text."""

    @property
    def held(self) -> int:
        """Characters that are unread, or were read since the mark."""
        return len(self._text) - self._at + self._kept_length

    @property
    def over(self) -> bool:
        """Everything was read, and nothing more will come."""
        return self.ended and self._at == len(self._text)

    def feed(self, text: str) -> None:
        """Take more text."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def mark(self) -> None:
        """Remember what is read from here on, so that it can be undone."""
        self._kept, self._kept_length = [], 0

    def release(self) -> None:
        """What was read stays read."""
        self._kept, self._kept_length = None, 0

    def rewind(self) -> None:
        """Go back to the mark, and forget it."""
        self._text = "".join(self._kept or ()) + self._text[self._at :]
        self._at = 0
        self.release()

    def take(self, length: int) -> str:
        """Read so many characters of those that are there."""
        text = self._text[self._at : self._at + length]
        self._at += len(text)
        if self._kept is not None and text:
            self._kept.append(text)
            self._kept_length += len(text)
        return text

    def upto(self, stops: Stops) -> tuple[str, str]:
        """Read what is certainly before any of `stops`; also tell which one is next, '' if that is not known yet."""
        end, found = stops.find(self._text, self._at)
        if self.ended and not found:
            end = len(self._text)
        return self.take(end - self._at), found

    def scan(self, scanner: Scanner) -> str:
        """Read what belongs to `scanner`, as far as it is there."""
        return self.take(scanner.scan(self._text, self._at) - self._at)

    def peek(self) -> Script[str]:
        """The next character, unread; '' at the end of the text."""
        while self._at == len(self._text) and not self.ended:
            yield None
        return self._text[self._at : self._at + 1]

    def accept(self, string: str) -> Script[bool]:
        """Read `string` if it comes next."""
        while True:
            if self._text.startswith(string, self._at):
                self.take(len(string))
                return True
            if self.ended or not string.startswith(self._text[self._at : self._at + len(string)]):
                return False
            yield None

    def word(self, pattern: re.Pattern[str]) -> Script[str]:
        """Read as long as `pattern`, one of single characters with a star, goes on."""
        pieces: list[str] = []
        while (yield from self.peek()):
            match = pattern.match(self._text, self._at)
            end = match.end() if match else self._at
            if end == self._at:
                break
            pieces.append(self.take(end - self._at))
        return "".join(pieces)

    def space(self) -> Script[str]:
        """Read white space."""
        return (yield from self.word(_SPACE))

    def skip(self, strings: Iterable[str]) -> Script[None]:
        """Read those of `strings` that come next in this order, each with the space before it; where the text ends
        within one, what there is of it."""
        for string in strings:
            self.mark()
            yield from self.space()
            if (yield from self.accept(string)) or self._ends_within(string):
                self.release()
            else:
                self.rewind()

    def _ends_within(self, string: str) -> bool:
        """Read the beginning of `string` if that is all that is left."""
        rest = self._text[self._at :]
        within = self.ended and string.startswith(rest)
        self.take(len(rest) if within else 0)
        return within
