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
    """The most tokens that a prefill turn may hold where the streams that run are at least as many as the prompts."""
    usual_s: float | None = None
    """How long the streams wait for a token while no prompt comes in; a running average."""
    held_up_s: float = 0.0
    """Time of the prefill turns since the last decode turn."""
    held_up_tokens: int = 0
    """What they held."""


def turn_tokens(pace: Pace, *, prompts: int, streams: int, max_gap_ratio: float, most_tokens: int) -> int:
    """How many tokens a prefill turn may hold now.

    Everyone waits for a token, those in prefill for their first. Where they are more than the streams that run, a wait
    may be as many times longer: the sum of all waits is what counts. With no stream running there is none to hold up.

    Args:
        max_gap_ratio: how many times their usual wait the streams may wait while prompts come in; above 1.
        most_tokens: the largest turn there may be.
    """
    if not streams:
        return most_tokens
    ratio = max_gap_ratio * max(1.0, prompts / streams)
    return min(round(pace.budget_tokens * (ratio - 1) / (max_gap_ratio - 1)), most_tokens)


def after_prefill(pace: Pace, tokens: int, seconds: float) -> Pace:
    """A prefill turn beside running streams took so long."""
    return replace(pace, held_up_s=pace.held_up_s + seconds, held_up_tokens=pace.held_up_tokens + tokens)


def after_decode(pace: Pace, step_s: float, *, max_gap_ratio: float, most_tokens: int) -> Pace:
    """A decode step took so long: the streams waited for it, and for the prefill turns before it.

    Turns smaller than the budget tell nothing of it: what they cost is mostly overhead.
    """
    if not pace.held_up_tokens:
        usual_s = step_s if pace.usual_s is None else MEMORY * pace.usual_s + (1 - MEMORY) * step_s
        return replace(pace, usual_s=usual_s)
    budget = pace.budget_tokens
    if pace.usual_s is not None and pace.held_up_tokens >= budget:
        allowed = 1 + (max_gap_ratio - 1) * pace.held_up_tokens / budget
        factor = allowed * pace.usual_s / (pace.held_up_s + step_s)
        budget = round(budget * min(max(factor, 1 / STEEPEST), STEEPEST))
        budget = min(max(budget, LEAST_TOKENS), most_tokens)
    return replace(pace, budget_tokens=budget, held_up_s=0.0, held_up_tokens=0)
