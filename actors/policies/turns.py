"""Whose turn it is at the engine."""

from enum import StrEnum


class Turn(StrEnum):
    PREFILL = "prefill"
    DECODE = "decode"


def next_turn(*, prefilling: bool, decoding: bool, under_way: frozenset[Turn], last: Turn | None) -> Turn | None:
    """The turn to grant now, or None to wait.

    At most one turn of each kind is under way, so the engine has its next command before it ends the last one,
    and where both kinds have work they alternate: no prompt, however long, stops the running streams for more
    than one chunk.
    """
    wanted = [Turn.PREFILL] * prefilling + [Turn.DECODE] * decoding
    free = [turn for turn in wanted if turn not in under_way]
    fresh = [turn for turn in free if turn is not last]
    return next(iter(fresh or free), None)
