"""How large prefill turns may be beside running streams, so that those keep their pace."""

from dataclasses import dataclass, replace

LEAST_TOKENS = 16
"""Below it a turn costs more in overhead than in tokens."""
FIRST_TOKENS = 16
"""Before anything was measured."""
STEEPEST = 2.0
"""One turn, which noise may have stretched, changes the budget by no more than this factor."""
MEMORY = 0.8
"""How much of the usual step time is kept when a new one is measured."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What has been measured, and what follows for the next prefill turn."""

    budget_tokens: int = FIRST_TOKENS
    """The most tokens that a prefill turn beside running streams may hold."""
    usual_s: float | None = None
    """How long the streams wait for a token while no prompt comes in; a running average."""
    held_up_s: float = 0.0
    """Time of the prefill turns since the last decode turn."""


def after_prefill(pace: Pace, seconds: float) -> Pace:
    """A prefill turn took so long."""
    return replace(pace, held_up_s=pace.held_up_s + seconds)


def after_decode(pace: Pace, step_s: float, *, max_gap_ratio: float, most_tokens: int) -> Pace:
    """A decode step took so long: the streams waited for it, and for the prefill turns before it.

    Args:
        max_gap_ratio: how many times their usual wait the streams may wait while prompts come in.
        most_tokens: the largest budget there may be.
    """
    if not pace.held_up_s:
        usual_s = step_s if pace.usual_s is None else MEMORY * pace.usual_s + (1 - MEMORY) * step_s
        return replace(pace, usual_s=usual_s)
    if pace.usual_s is None:
        return replace(pace, held_up_s=0.0)
    allowed = max_gap_ratio * pace.usual_s / (pace.held_up_s + step_s)
    wanted = round(pace.budget_tokens * min(max(allowed, 1 / STEEPEST), STEEPEST))
    return replace(pace, budget_tokens=min(max(wanted, LEAST_TOKENS), most_tokens), held_up_s=0.0)
