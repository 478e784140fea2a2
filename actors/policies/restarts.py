"""How often a supervisor may restart its children, in the terms of Erlang's `supervisor`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intensity:
    """At most `restarts` restarts within any `within_s` seconds; the next death is the supervisor's own."""

    restarts: int
    within_s: float


def recent(deaths: tuple[float, ...], *, now: float, intensity: Intensity) -> tuple[float, ...]:
    """The times of those deaths that still count, with the one now."""
    return (*(at for at in deaths if now - at < intensity.within_s), now)


def exhausted(deaths: tuple[float, ...], intensity: Intensity) -> bool:
    """Whether so many recent deaths are one too many."""
    return len(deaths) > intensity.restarts


BACK_OFF_S = 0.25
LONGEST_BACK_OFF_S = 2.0


def back_off_s(deaths: tuple[float, ...]) -> float:
    """How long to wait before the restart: not at all after a first death, then twice as long after each that is
    recent."""
    return 0.0 if len(deaths) <= 1 else min(BACK_OFF_S * 2.0 ** (len(deaths) - 2), LONGEST_BACK_OFF_S)
