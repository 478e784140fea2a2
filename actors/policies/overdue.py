"""Which open requests have outstayed: their deadline passed, or their client stopped reading."""

from dataclasses import dataclass

from runtime.types import CancelCause


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a client had read when it was last seen to make progress."""

    taken: int
    """Replies taken by then."""
    since: float
    """When that was seen first."""


def read_on(last: Reading, *, taken: int, unread: int, now: float) -> Reading:
    """What is known of a reader now; one that has nothing to read makes progress by definition."""
    return last if unread and taken == last.taken else Reading(taken, now)


def overdue(reading: Reading, *, deadline: float, now: float, stall_s: float) -> CancelCause | None:
    """Why a request must end now, or None if it may go on."""
    if now >= deadline:
        return CancelCause.DEADLINE
    if now - reading.since >= stall_s:
        return CancelCause.STALLED
    return None
