"""CacheManager: KV bytes on lease, and the index of kept prefixes. Handles and sizes, never arrays."""

from collections import OrderedDict
from typing import assert_never

from actors import messages as m
from actors.base import Actor, Ref
from actors.policies.prefix import common_prefix, hit_type, usable_tokens
from actors.snapshots import CacheSnapshot
from runtime.engine.commands import DropKv
from runtime.engine.host import Deliver, EngineRef
from runtime.types import HitType, KvHandle, PressureLevel, RequestId

MOST_KEPT = 256
"""Kept prefixes, however short: each holds two buffers a layer, and Metal counts buffers (499,000 at most)."""


class CacheManager(Actor[m.CacheWord]):
    """Sets KV bytes aside for every sequence that runs, and keeps those of ended ones, least recently used
    out first, as long as nobody needs the room."""

    def __init__(
        self,
        *,
        engine: EngineRef,
        reply: Deliver,
        scheduler: Ref[m.KvLeased | m.KvRefused],
        bytes_per_token: int,
        budget_bytes: int,
        keep_bytes: int,
    ) -> None:
        self._engine = engine
        self._reply = reply
        self._scheduler = scheduler
        self._bytes_per_token = bytes_per_token
        self._budget_bytes = budget_bytes
        """For leases and kept prefixes together."""
        self._keep_bytes = keep_bytes
        """For kept prefixes alone."""
        self._leases: dict[RequestId, tuple[int, KvHandle | None]] = {}
        """The most tokens the sequence can come to hold, and the kept prefix it started from."""
        self._kept: OrderedDict[KvHandle, tuple[int, ...]] = OrderedDict()
        """Token ids by handle, least recently used first."""
        self._kept_tokens = 0
        self._hits = self._lookups = self._evictions = 0

    def receive(self, message: m.CacheWord) -> None:
        match message:
            case m.LeaseKv():
                self._lease(message)
            case m.ReleaseKv(request_id, kept):
                self._leases.pop(request_id, None)
                if kept:
                    self._keep(kept)
            case m.PressureChanged(level):
                if level is not PressureLevel.NORMAL:
                    self._evict_to(0)
            case m.EngineReplied():
                pass
            case _:
                assert_never(message)

    def _lease(self, wish: m.LeaseKv) -> None:
        handle, shared = self._longest(wish.history)
        self._leases[wish.request_id] = (wish.total_tokens, handle)
        self._evict_to(self._budget_bytes - self._leased_bytes())
        if self._leased_bytes() + self._stored_bytes() > self._budget_bytes and len(self._leases) > 1:
            del self._leases[wish.request_id]
            self._scheduler.tell(m.KvRefused(wish.request_id))
            return
        self._grant(wish, handle, shared)

    def _grant(self, wish: m.LeaseKv, handle: KvHandle | None, shared: int) -> None:
        self._lookups += bool(wish.history)
        usable = usable_tokens(wish.history, shared)
        if handle is None or usable == 0:
            self._scheduler.tell(m.KvLeased(wish.request_id, 0, HitType.MISS, None))
            return
        self._hits += 1
        self._kept.move_to_end(handle)
        hit = hit_type(wish.history, self._kept[handle], shared)
        self._scheduler.tell(m.KvLeased(wish.request_id, usable, hit, handle))

    def _longest(self, history: tuple[int, ...]) -> tuple[KvHandle | None, int]:
        best: tuple[KvHandle | None, int] = (None, 0)
        for handle, kept in self._kept.items():
            shared = common_prefix(history, kept)
            if shared > best[1]:
                best = (handle, shared)
        return best

    def _keep(self, kept: m.StoredKv) -> None:
        for handle, token_ids in list(self._kept.items()):
            if token_ids == kept.token_ids[: len(token_ids)] and not self._pinned(handle):
                self._drop(handle)
        self._kept[kept.handle] = kept.token_ids
        self._kept_tokens += len(kept.token_ids)
        self._evict_to(min(self._keep_bytes, self._budget_bytes - self._leased_bytes()))

    def _evict_to(self, allowed_bytes: int) -> None:
        for handle in list(self._kept):
            if self._stored_bytes() <= allowed_bytes and len(self._kept) <= MOST_KEPT:
                return
            if not self._pinned(handle):
                self._evictions += 1
                self._drop(handle)

    def _pinned(self, handle: KvHandle) -> bool:
        """A prefix somebody leased stays: the engine may not have copied it yet."""
        return any(handle == leased for _, leased in self._leases.values())

    def _drop(self, handle: KvHandle) -> None:
        self._kept_tokens -= len(self._kept.pop(handle))
        self._engine.submit(DropKv((handle,)), self._reply)

    def _leased_bytes(self) -> int:
        """What the running sequences can come to take: in a batch every row is padded to the longest."""
        longest = max((tokens for tokens, _ in self._leases.values()), default=0)
        return len(self._leases) * longest * self._bytes_per_token

    def _stored_bytes(self) -> int:
        return self._kept_tokens * self._bytes_per_token

    def snapshot(self) -> CacheSnapshot:
        return CacheSnapshot(
            budget_bytes=self._budget_bytes,
            leased_bytes=self._leased_bytes(),
            stored_bytes=self._stored_bytes(),
            leases=len(self._leases),
            entries=len(self._kept),
            hits=self._hits,
            lookups=self._lookups,
            evictions=self._evictions,
        )
