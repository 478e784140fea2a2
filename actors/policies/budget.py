"""How much memory the KV caches may take."""

from dataclasses import dataclass

from runtime.types import ModelFacts

WORKING_FRACTION = 0.1
"""Of the device's memory, left to activations and to everyone else on the machine."""
LEAST_FRACTION = 0.05
LEAST_TOKENS = 512
"""However little is free once the model is loaded, so much of the device's memory, and room for so many tokens, is
taken for granted: others may free theirs, and a server without KV caches could serve nobody."""


@dataclass(frozen=True, slots=True)
class KvBudget:
    total_bytes: int
    """For running sequences and kept prefixes together."""
    keep_bytes: int
    """For kept prefixes alone."""
    context_tokens: int
    """The longest sequence: what was chosen, else the model's context, but no more than could ever be held."""
    more_than_free: bool = False
    """So little was free that the least there must be is more than that."""


def kv_budget(
    facts: ModelFacts,
    *,
    total_mb: int | None,
    keep_mb: int | None,
    keep_fraction: float,
    context_tokens: int | None = None,
) -> KvBudget:
    """Share out what is free once the model is loaded. Who is let in depends on that; how long a sequence may be does
    not, where nothing was chosen: one alone may go on as far as the device's whole memory goes.

    Args:
        total_mb: MiB for all KV caches, or None for what is free.
        keep_mb: MiB for kept prefixes, or None for `keep_fraction` of the device's memory.
        context_tokens: the longest sequence that the operator wants, or None for what the model declares.
    """
    wanted = context_tokens or facts.context_tokens
    free = _but_for_others(facts, facts.free_bytes)
    least = max(round(facts.memory_bytes * LEAST_FRACTION), LEAST_TOKENS * facts.kv_bytes_per_token)
    total = max(free, least) if total_mb is None else total_mb << 20
    most = max(total, _but_for_others(facts, facts.memory_bytes - facts.weight_bytes)) if total_mb is None else total
    keep = round(facts.memory_bytes * keep_fraction) if keep_mb is None else keep_mb << 20
    holds = most // facts.kv_bytes_per_token if facts.kv_bytes_per_token else wanted
    return KvBudget(total, min(keep, total), max(1, min(wanted, holds)), total_mb is None and free < least)


def _but_for_others(facts: ModelFacts, nbytes: int) -> int:
    return max(0, round(nbytes - facts.memory_bytes * WORKING_FRACTION))
