"""How many sequences run at once: one, or as many as there is room for."""

from runtime.types import RuntimeMode


def mode_after(mode: RuntimeMode, *, requests: int, threshold: int) -> RuntimeMode:
    """The mode once there are so many requests at the Scheduler. AUTO is one at a time that may yet become BATCHED;
    nothing ever goes back."""
    if mode is RuntimeMode.AUTO and requests >= threshold:
        return RuntimeMode.BATCHED
    return mode


def mode_at_first(wanted: RuntimeMode, *, batchable: bool, was_batched: bool) -> RuntimeMode:
    """The mode that a life of the engine room begins with: what the operator `wanted`, as far as the model can be
    `batchable`. What `was_batched` in an earlier life stays so."""
    if not batchable:
        return RuntimeMode.SIMPLE
    return RuntimeMode.BATCHED if was_batched and wanted is RuntimeMode.AUTO else wanted


def shown(mode: RuntimeMode) -> RuntimeMode:
    """How it is now: SIMPLE or BATCHED."""
    return mode if mode is RuntimeMode.BATCHED else RuntimeMode.SIMPLE
