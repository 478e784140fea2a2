"""The leases that CacheManager has given, and the room that they leave."""

from collections import deque
from dataclasses import dataclass, field

from actors import messages as m
from actors.policies.budget import KvBudget
from actors.policies.leases import leased_tokens
from actors.policies.pressure import share_kept
from runtime.types import HitType, KvHandle, KvPiece, ModelFacts, PressureLevel, RequestId, SequenceId


@dataclass(slots=True)
class Lease:
    """What one running sequence takes, and how it began."""

    request: m.Request
    sequence_id: SequenceId
    history: tuple[int, ...]
    root: KvHandle
    tokens: int
    """How many it holds, as far as room goes."""
    cached_tokens: int = 0
    hit_type: HitType = HitType.MISS
    pieces: tuple[KvPiece, ...] = ()
    """The chain that its checkpoints make, with what it began with, up to what has been dropped since."""
    stops: deque[int] = field(default_factory=deque)
    """Where its checkpoints lie of which the engine has told nothing yet; while there are any it is in prefill."""
    counts: bool = False
    """What it began with is to be counted when it leaves: it was looked up, for the first time."""


class Leases(dict[RequestId, Lease]):
    """By request, in the order in which they were given."""

    def __init__(self, facts: ModelFacts, budget: KvBudget) -> None:
        super().__init__()
        self._facts = facts
        self._budget = budget

    @property
    def nbytes(self) -> int:
        """What they take together, as the padding in batches makes it."""
        lengths = [lease.tokens for lease in self.values()]
        return leased_tokens(lengths, self._facts.padding_ratio) * self._facts.kv_bytes_per_token

    def are_overdrawn(self) -> bool:
        """Whether they take more than there is. One sequence alone always goes on."""
        return len(self) > 1 and self.nbytes > self._budget.total_bytes

    def bytes_to_keep(self, pressure: PressureLevel) -> int:
        """What they leave to kept prefixes, as far as the pressure on memory allows."""
        left = self._budget.total_bytes - self.nbytes
        return max(0, min(round(self._budget.keep_bytes * share_kept(pressure)), left))
