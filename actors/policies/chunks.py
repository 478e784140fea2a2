"""How a prefill turn's budget is shared out, and where prompts are cut."""

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.types import SequenceId


@dataclass(frozen=True, slots=True)
class Chunks:
    """Where prompts may be cut: after every `tokens` ids from the first on, or, with 0, anywhere."""

    tokens: int

    def floor(self, position: int) -> int:
        """The last cut at or before a position."""
        return position // self.tokens * self.tokens if self.tokens else position

    def cuts(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The chunks from a cut on, up to `stop`."""
        if not self.tokens:
            return [(start, stop)]
        return [(first, min(first + self.tokens, stop)) for first in range(start, stop, self.tokens)]

    def whole(
        self, shares: Mapping[SequenceId, int], sent: Mapping[SequenceId, int], stops: Mapping[SequenceId, int]
    ) -> dict[SequenceId, int]:
        """Shares that end at cuts, or at their sequence's stop: each is rounded down, but the oldest gets one chunk in
        any case.

        Args:
            shares: as share_out gives them, oldest first.
            sent: how far each sequence has come: to a cut.
            stops: how far it may be taken.
        """
        if not self.tokens:
            return dict(shares)
        found = {}
        for place, (key, share) in enumerate(shares.items()):
            end = sent[key] + share
            end = end if end >= stops[key] else self.floor(end)
            if place == 0:
                end = max(end, min(sent[key] + self.tokens, stops[key]))
            if end > sent[key]:
                found[key] = end - sent[key]
        return found


ANYWHERE = Chunks(0)


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
