"""Finds out how long the end of a sequence has gone round in circles, for circles of every length.

Sequences are strings here, a character for each symbol, because Python searches and compares strings at C's speed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

KEY = 12
"""Symbols that must come back before anything is looked at: fewer come back in any text."""


@dataclass(frozen=True, slots=True)
class Run:
    """The last `extent` symbols repeat themselves every `period` symbols; `extent` is as large as it can be."""

    period: int
    extent: int


def runs(symbols: str) -> Iterator[Run]:
    """The runs at the end of `symbols`, by growing extent: circles in circles, as in a table of equal rows of zeros.

    Periods grow with the extents. Left out are runs that begin behind the shortest of another run's beginnings and
    hold no full three periods, and those of less than KEY symbols.
    """
    size, length = len(symbols), KEY
    while length < size:
        # Whatever holds all of the last run must hold the symbol before it, too.
        at = symbols.rfind(symbols[size - length :], 0, size - 1)
        if at < 0:
            return
        run = Run(size - length - at, _extent(symbols, size - length - at))
        yield run
        length = run.extent + 1


def _extent(symbols: str, period: int) -> int:
    """The length of the longest ending of `symbols` that repeats itself every `period` symbols, by bisection."""
    size = len(symbols)
    good, bad = 0, size - period + 1  # symbols that equal those a period before them
    while bad - good > 1:
        middle = (good + bad) // 2
        if symbols[size - middle : size - good] == symbols[size - middle - period : size - good - period]:
            good = middle
        else:
            bad = middle
    return good + period
