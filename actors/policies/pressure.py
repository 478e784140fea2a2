"""How near the machine is to running out of memory."""

from runtime.types import PressureLevel

HYSTERESIS = 0.02
"""How far usage must fall below a threshold (a fraction of all memory) before the level goes down again."""


def pressure_level(used: float, *, warn: float, limit: float, last: PressureLevel) -> PressureLevel:
    """The level for `used` memory; all three are fractions of all memory, and `warn` < `limit`."""
    if used >= limit or (last is PressureLevel.LIMIT and used >= limit - HYSTERESIS):
        return PressureLevel.LIMIT
    if used >= warn or (last is not PressureLevel.NORMAL and used >= warn - HYSTERESIS):
        return PressureLevel.WARN
    return PressureLevel.NORMAL


def share_kept(level: PressureLevel) -> float:
    """How much of its bytes the prefix cache may keep: it gives way before anybody who runs does."""
    return {PressureLevel.NORMAL: 1.0, PressureLevel.WARN: 0.5, PressureLevel.LIMIT: 0.0}[level]
