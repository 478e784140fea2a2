"""Who may come in."""

from runtime.types import MemoryAction, PressureLevel, RejectReason


def refusal(
    asking: int, *, open_requests: int, credits: int, draining: bool, pressure: PressureLevel, action: MemoryAction
) -> RejectReason | None:
    """Why `asking` requests may not come in together, or None if they may.

    `credits` is how many may be inside at once, running and waiting.
    """
    if draining:
        return RejectReason.DRAINING
    if pressure is PressureLevel.LIMIT and action is MemoryAction.REJECT_NEW:
        return RejectReason.MEMORY_PRESSURE
    if open_requests + asking > credits:
        return RejectReason.QUEUE_FULL
    return None


def granted_tokens(max_tokens: int, *, pressure: PressureLevel, action: MemoryAction) -> int:
    """How many output tokens a new request gets of the `max_tokens` it asked for: half of them under pressure."""
    if pressure is PressureLevel.LIMIT and action is MemoryAction.REDUCE_CONTEXT:
        return max(1, max_tokens // 2)
    return max_tokens
