"""Whose turn it is at the engine."""

from collections.abc import Mapping
from enum import StrEnum


class Turn(StrEnum):
    PREFILL = "prefill"
    DECODE = "decode"


MOST_UNDER_WAY = 2
"""The engine has its next command before it ends the last one, and never much more to do than that."""
MOST_OF_A_KIND = {Turn.PREFILL: 1, Turn.DECODE: 2}
"""A second prefill turn could find nothing to do: what the first one leaves is known when it ends."""


def next_turn(*, prefilling: bool, decoding: bool, under_way: Mapping[Turn, int], last: Turn | None) -> Turn | None:
    """The turn to grant now, or None to wait.

    Where both kinds have work they alternate: no prompt, however long, stops the running streams for more than one
    chunk, and no stream keeps a prompt waiting for more than one step.
    """
    if sum(under_way.values()) >= MOST_UNDER_WAY:
        return None
    wanted = [Turn.PREFILL] * prefilling + [Turn.DECODE] * decoding
    free = [turn for turn in wanted if under_way.get(turn, 0) < MOST_OF_A_KIND[turn]]
    if prefilling and decoding:
        free = [turn for turn in free if turn is not last]
    return free[0] if free else None
