"""How a prefill turn's budget is shared out."""

from collections.abc import Mapping

from runtime.types import SequenceId


def share_out(remaining: Mapping[SequenceId, int], budget_tokens: int) -> dict[SequenceId, int]:
    """How many tokens of each sequence go into one prefill turn.

    First come, first served: what the first sequence leaves of the budget goes to the next, so several short
    prompts share a turn and a long one takes several.

    Args:
        remaining: tokens still to prefill by sequence, at least one each, oldest first.
        budget_tokens: the most tokens a turn may hold, at least one.
    """
    shares: dict[SequenceId, int] = {}
    for sequence_id, tokens in remaining.items():
        if budget_tokens <= 0:
            break
        shares[sequence_id] = min(tokens, budget_tokens)
        budget_tokens -= shares[sequence_id]
    return shares
