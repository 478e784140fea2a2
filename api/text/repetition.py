"""Decides when a text that goes round in circles is ended: what counts as a circle, and how many are too many.

The limits were chosen on the texts in tests/repetition, less a third that was kept apart to try them on; `python -m
tests.soak.repetition` prints what becomes of each.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, auto
from functools import cached_property
from itertools import takewhile

from api.text.periods import Run
from runtime.types import RepetitionPolicy

CLEARLY_PROSE = 0.6
"""Of the visible characters, the share that are letters in anything but code and tables."""

SAMPLE = 1000
"""Characters that tell what a long unit is made of."""

ASKED_FACTOR = 3
"""How much more patient `safe` is with what the prompt says, too."""

MOST_PLACES = 32
"""Of a prompt that are compared with what repeats itself: one that says half of it everywhere must not cost more."""


class RepetitionTrigger(StrEnum):
    """What a text was ended for; `stop_reason_detail` in replies."""

    TOKEN_LOOP = "token_loop"  # noqa: S105 (no secret)
    """One or two tokens, again and again."""
    PHRASE_LOOP = "phrase_loop"
    """Words, a sentence or a paragraph, again and again."""
    LINE_LOOP = "line_loop"
    """One or more whole lines, again and again."""
    COUNTED_LOOP = "counted_loop"
    """The same, but for numbers in it."""
    SENTENCE_LOOP = "sentence_loop"
    """A few sentences, again and again in any order, or with a slip now and then."""
    BLANK_LOOP = "blank_loop"
    """Nothing to see: spaces, line breaks, or tokens without text."""


class Nature(StrEnum):
    """What a repeated text is made of, which says what it may be good for."""

    BLANK = auto()
    SIGNS = auto()
    """Neither letters nor digits: rulers, boxes, boards, emoji."""
    FIGURES = auto()
    """Numbers, and letters without a space: matrices, arrays, sequences, laughter."""
    CODE = auto()
    """Programs, markup, tables, data."""
    WORDS = auto()


_CODE = re.compile(r"[{}\[\]<>|=\\^_\t]|\w[,:;(]\w|;\n|  ")
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


def nature(unit: str) -> Nature:
    """What a text that consists of `unit` over and over is made of; `unit` may begin anywhere."""
    visible = "".join(unit.split())
    letters = sum(map(str.isalpha, visible))
    digits = sum(map(str.isdigit, visible))
    if not visible:
        return Nature.BLANK
    if not letters and not digits:
        return Nature.SIGNS
    if digits > letters or (visible == unit and visible.isascii()):
        return Nature.FIGURES
    if letters < CLEARLY_PROSE * len(visible) or _CODE.search(unit + unit):
        return Nature.CODE
    return Nature.WORDS


@dataclass(frozen=True, slots=True)
class Limit:
    """How much is too much."""

    tokens: int
    """So many at least, however often they repeat."""
    repeats: int = 1
    """So many at least, however long they are."""
    span: int = 0
    """And so many tokens of short units,"""
    enough: int = 1
    """but no more than so many repeats of them."""

    def needed(self, period: int) -> int:
        """The tokens of a loop with this period that are too much."""
        return max(self.tokens, self.repeats * period, min(self.span, self.enough * period))


NEVER = Limit(tokens=1 << 60)

SAME = {
    RepetitionPolicy.SAFE: {
        Nature.BLANK: Limit(tokens=400, repeats=5),
        Nature.SIGNS: Limit(tokens=2048, repeats=8),
        Nature.FIGURES: Limit(tokens=4096, repeats=8),
        Nature.CODE: Limit(tokens=3072, repeats=8),
        Nature.WORDS: Limit(tokens=200, repeats=5, span=600, enough=110),
    },
    RepetitionPolicy.STRICT: {
        Nature.BLANK: Limit(tokens=320, repeats=3),
        Nature.SIGNS: Limit(tokens=256, repeats=8),
        Nature.FIGURES: Limit(tokens=512, repeats=8),
        Nature.CODE: Limit(tokens=256, repeats=8),
        Nature.WORDS: Limit(tokens=24, repeats=3, span=100, enough=20),
    },
}
"""By what repeats itself to the letter."""

COUNTED = {
    RepetitionPolicy.SAFE: {
        Nature.CODE: Limit(tokens=8192, repeats=512),
        Nature.WORDS: Limit(tokens=600, repeats=16, span=6000, enough=120),
    },
    RepetitionPolicy.STRICT: {
        Nature.CODE: Limit(tokens=2048, repeats=200),
        Nature.WORDS: Limit(tokens=200, repeats=6, span=1000, enough=24),
    },
}
"""By what repeats itself but for its numbers: one that counts. A round with more says something by them, as a row of a
table does, and is taken for one. Of figures alone nothing would be left to compare."""


def too_much(
    run: Run, unit: str, policy: RepetitionPolicy, *, counted: bool = False, patience: int = 1
) -> RepetitionTrigger | None:
    """What a text is to be ended for that ends with `run`, in tokens, of `unit`; None if it may go on.

    `counted`: its numbers were left out of account. `patience` multiplies the limit.
    """
    made_of = nature(unit[:SAMPLE])
    if counted and made_of is Nature.WORDS and numbers(unit) > 1:
        made_of = Nature.CODE
    limit = (COUNTED if counted else SAME)[policy].get(made_of, NEVER)
    if run.extent < patience * limit.needed(run.period):
        return None
    if made_of is Nature.BLANK:
        return RepetitionTrigger.BLANK_LOOP
    if counted:
        return RepetitionTrigger.COUNTED_LOOP
    if run.period <= 2:
        return RepetitionTrigger.TOKEN_LOOP
    return RepetitionTrigger.LINE_LOOP if "\n" in unit else RepetitionTrigger.PHRASE_LOOP


def least(policy: RepetitionPolicy) -> Limit:
    """What is below this is never too much, whatever it is made of."""
    limits = [limit for table in (SAME, COUNTED) for limit in table[policy].values()]
    return Limit(min(limit.tokens for limit in limits), min(limit.repeats for limit in limits))


class Prompt:
    """What the prompt says, for a text that repeats itself may do so because it was told to."""

    def __init__(self, text: Callable[[], str]) -> None:
        """`text` is called once, and only if something repeats itself."""
        self._ask = text
        self._known: dict[frozenset[str], bool] = {}

    def patience(self, unit: str, policy: RepetitionPolicy, *, counted: bool = False) -> int:
        """How many times as much of `unit` may come as of anything else."""
        return ASKED_FACTOR if policy is RepetitionPolicy.SAFE and self.says(unit, counted=counted) else 1

    def says(self, unit: str, *, counted: bool = False) -> bool:
        """Whether it holds what a text consists of that is `unit` over and over; `unit` may begin anywhere.

        Words are compared, whatever stands between them, without numbers if `counted`; where there are none, everything
        is.
        """
        words = [word for word in whole_words(unit) if not (counted and word.isdecimal())]
        key = frozenset((*(words or unit), "#" * counted))
        if key not in self._known:
            said = self._countless if counted else self._words
            self._known[key] = holds_turned(said, words) if words else unit in self._text
        return self._known[key]

    @cached_property
    def _text(self) -> str:
        return self._ask()

    @cached_property
    def _words(self) -> str:
        return f" {' '.join(_WORD.findall(self._text.casefold()))} "

    @cached_property
    def _countless(self) -> str:
        return f" {' '.join(word for word in self._words.split() if not word.isdecimal())} "


def numbers(unit: str) -> int:
    """How many numbers are in a round of a text that is `unit` over and over."""
    return len(_NUMBER.findall(unit * 2)) - len(_NUMBER.findall(unit))


def whole_words(unit: str) -> list[str]:
    """The words of one round of a text that is `unit` over and over; `unit` may begin within one."""
    three, four = (_WORD.findall((unit * times).casefold()) for times in (3, 4))
    return three[1 : 1 + len(four) - len(three)]


def holds_turned(text: str, words: list[str]) -> bool:
    """Whether `text`, words with a space around each, holds `words`, beginning with any of them.

    Wherever a circle is cut, one of its halves stays whole: it is looked for, and what stands around it is compared.
    """
    middle = len(words) // 2
    halves = words[:middle], words[middle:]
    return any(_holds(text, whole, other) for whole, other in (halves, halves[::-1]) if whole)


def _holds(text: str, whole: list[str], cut: list[str]) -> bool:
    """Whether `whole` is there with the end of `cut` before it and the beginning behind it."""
    wanted = f" {' '.join(whole)} "
    room = sum(map(len, cut)) + len(cut)
    at = text.find(wanted)
    for _ in range(MOST_PLACES):
        if at < 0:
            return False
        end = at + len(wanted)
        before, behind = text[max(0, at - room) : at].split(), text[end : end + room].split()
        if _alike(cut[::-1], before[::-1]) + _alike(cut, behind) >= len(cut):
            return True
        at = text.find(wanted, at + 1)
    return False


def _alike(one: list[str], other: list[str]) -> int:
    """How many words they begin with that are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
