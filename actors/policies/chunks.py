"""How a prefill turn's budget is shared out."""

from collections.abc import Mapping

from runtime.types import SequenceId


def share_out(remaining: Mapping[SequenceId, int], budget_tokens: int) -> dict[SequenceId, int]:
    """How many tokens of each sequence go into one prefill turn.

    Half of it belongs to the oldest sequence, which therefore always gets on; the other half to the shortest rest
    first, so that a short prompt does not wait behind a long one and several short ones share a turn.

    Args:
        remaining: tokens still to prefill by sequence, at least one each, oldest first.
        budget_tokens: the most tokens a turn may hold, at least one.
    """
    if not remaining:
        return {}
    oldest = next(iter(remaining))
    shares = {oldest: min(remaining[oldest], (budget_tokens + 1) // 2)}
    left = budget_tokens - shares[oldest]
    for sequence_id in sorted(remaining, key=lambda each: remaining[each]):
        more = min(remaining[sequence_id] - shares.get(sequence_id, 0), left)
        if more:
            shares[sequence_id] = shares.get(sequence_id, 0) + more
            left -= more
    return shares
