"""How much memory the KV caches may take."""

from dataclasses import dataclass

from runtime.types import ModelFacts

WORKING_FRACTION = 0.1
"""Of the device's memory, left to activations and to everyone else on the machine."""


@dataclass(frozen=True, slots=True)
class KvBudget:
    total_bytes: int
    """For running sequences and kept prefixes together."""
    keep_bytes: int
    """For kept prefixes alone."""
    context_tokens: int
    """The longest sequence: what was chosen, else the model's context, but no more than the budget can hold."""


def kv_budget(
    facts: ModelFacts,
    *,
    total_mb: int | None,
    keep_mb: int | None,
    keep_fraction: float,
    context_tokens: int | None = None,
) -> KvBudget:
    """Share out what is free once the model is loaded.

    Args:
        total_mb: MiB for all KV caches, or None for what is free.
        keep_mb: MiB for kept prefixes, or None for `keep_fraction` of the device's memory.
        context_tokens: the longest sequence that the operator wants, or None for what the model declares.
    """
    wanted = context_tokens or facts.context_tokens
    free = max(0, round(facts.free_bytes - facts.memory_bytes * WORKING_FRACTION))
    total = free if total_mb is None else total_mb << 20
    keep = round(facts.memory_bytes * keep_fraction) if keep_mb is None else keep_mb << 20
    holds = total // facts.kv_bytes_per_token if facts.kv_bytes_per_token else wanted
    return KvBudget(total, min(keep, total), max(1, min(wanted, holds)))
