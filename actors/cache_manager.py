"""CacheManager: KV bytes on lease, and what is kept of ended sequences. Names and sizes, never arrays."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import assert_never

from actors import messages as m
from actors.base import Actor, Ref
from actors.leases import Lease, Leases
from actors.policies.budget import KvBudget
from actors.policies.chunks import ANYWHERE, Chunks
from actors.policies.pieces import root_of
from actors.policies.prefix_cache import WORTH_TOKENS, Freed, Hit, Plan, PrefixCache
from actors.policies.tier import Entry
from actors.snapshots import CacheSnapshot
from runtime.engine.commands import (
    ClearKv,
    DropKv,
    EraseKv,
    FetchKv,
    Forget,
    GiveBack,
    KvListed,
    KvLoaded,
    LoadKv,
    Result,
    Stored,
    StoreKv,
)
from runtime.engine.host import Deliver, EngineRef
from runtime.types import HitType, KvHandle, KvPiece, ModelFacts, PressureLevel, RequestId, SequenceId


@dataclass(slots=True)
class Fetch:
    """What the engine was asked to read from disk."""

    entry: Entry
    in_vain: bool = False
    """Some of it has been dropped or erased since."""


class CacheManager(Actor[m.CacheWord]):
    """Sets KV bytes aside for every sequence that runs, keeps those of ended ones as long as nobody needs the room,
    and starts sequences with what is kept. Alone decides what the engine stores, loads, drops and forgets."""

    def __init__(
        self,
        *,
        engine: EngineRef,
        reply: Deliver,
        scheduler: Ref[m.KvLeased | m.KvRefused | m.KvOverdrawn],
        prefill_worker: Ref[m.PrefixFound | m.CheckpointHandled],
        facts: ModelFacts,
        budget: KvBudget,
        prefixes: PrefixCache,
        chunks: Chunks = ANYWHERE,
        listing: bool = False,
    ) -> None:
        self._engine = engine
        self._reply = reply
        self._scheduler = scheduler
        self._prefill_worker = prefill_worker
        self._budget = budget
        self._prefixes = prefixes
        self._chunks = chunks
        """Where they are fixed, only what was computed in whole chunks of a prompt is kept and served."""
        self._listing = listing
        """The engine has yet to say what an earlier life left on disk; nobody is served before."""
        self._pressure = PressureLevel.NORMAL
        self._leases = Leases(facts, budget)
        self._unanswered: Lease | None = None
        """It waits for what it is to begin with; the Scheduler never asks for two at once."""
        self._fetching: Fetch | None = None
        self._clearing: list[Callable[[], None]] = []
        """Who wants everything gone: what an earlier life left, too, once that is known."""
        self._cleared: deque[tuple[Callable[[], None], ...]] = deque()
        """Whom to tell when the engine has answered, for each ClearKv under way. What it says before of pieces that it
        has stored is out of date: they are gone by now."""
        self._overdrawn = False
        """The Scheduler was told, and nobody has left since."""
        self._hits: Counter[HitType] = Counter()

    def receive(self, message: m.CacheWord) -> None:
        match message:
            case m.LeaseKv():
                self._lease(message)
            case m.KvGrew(request_id, tokens):
                if lease := self._leases.get(request_id):
                    lease.tokens = tokens
            case m.PrefixTaken(request_id, hit_type):
                self._retake(request_id, hit_type)
            case m.ReleaseKv():
                self._release(message)
            case m.ClearCache(cleared):
                self._clearing.append(cleared)
            case m.PressureMeasured(level):
                self._pressed(level)
            case m.EngineReplied(Stored() as stored):
                self._stored(stored)
            case m.EngineReplied(KvListed(pieces)):
                self._listed(pieces)
            case m.EngineReplied(KvLoaded(sequence_id, 0)):
                raise RuntimeError(f"the engine lacks kept pieces that sequence {sequence_id} was to begin with")
            case m.EngineReplied():
                pass
            case _:
                assert_never(message)
        if self._clearing and not self._listing:
            self._clear()
        if self._unanswered:
            self._begin(self._unanswered)
        self._let_go(self._prefixes.shrink(self._bytes_to_keep()))
        self._balance()

    # --- leases ---

    def _lease(self, wish: m.LeaseKv) -> None:
        request = wish.request
        history = request.prompt_ids if self._chunks.tokens else wish.history
        lease = Lease(request, wish.sequence_id, history, root_of(request.cache_salt), len(wish.history) + 1)
        lease.counts = self._is_looked_up(lease) and not wish.again and not request.background
        self._leases[request.request_id] = lease
        if self._leases.are_overdrawn():
            self._refuse(lease)
        else:
            self._unanswered = lease

    def _refuse(self, lease: Lease) -> None:
        self._unanswered = None
        del self._leases[lease.request.request_id]
        self._scheduler.tell(m.KvRefused(lease.request.request_id))

    def _begin(self, lease: Lease) -> None:
        """Answer a lease, if what it begins with is at hand."""
        hit = None
        if self._is_looked_up(lease):
            if self._listing or self._fetching:
                return
            hit = self._prefixes.find(lease.root, lease.history)
            room_bytes = self._bytes_to_keep()
            if entry := self._prefixes.on_disk(lease.root, lease.history, hit, room_bytes=room_bytes):
                self._fetch(entry)
                return
            if hit and self._prefixes.is_coming(hit.handles):
                return
        self._unanswered = None
        self._grant(lease, hit)

    def _is_looked_up(self, lease: Lease) -> bool:
        request = lease.request
        return not request.to_score and not request.fresh and self._budget.keep_bytes > 0

    def _grant(self, lease: Lease, hit: Hit | None) -> None:
        if hit:
            self._engine.submit(LoadKv(lease.sequence_id, hit.handles, hit.tokens), self._reply)
            self._prefixes.use(hit.entry)
            lease.cached_tokens, lease.hit_type = hit.tokens, hit.hit_type
        request = lease.request
        plan = Plan((), ())
        if request.leaves_kv:
            plan = self._prefixes.plan(lease.root, lease.history, request.sampling.stop_ids, hit)
        lease.pieces = plan.pieces
        lease.stops.extend(checkpoint.tokens for checkpoint in plan.checkpoints)
        self._scheduler.tell(m.KvLeased(request.request_id, lease.cached_tokens, lease.hit_type, plan.checkpoints))

    def _fetch(self, entry: Entry) -> None:
        absent = [piece.handle for piece in entry.pieces if not self._prefixes.memory.holds(piece.handle)]
        self._fetching = Fetch(entry)
        self._prefixes.expect(absent)
        self._engine.submit(FetchKv(tuple(absent)), self._reply)

    def _retake(self, request_id: RequestId, hit_type: HitType) -> None:
        """A sequence in prefill was started anew: it was no miss, after all, or a better hit. It comes to no checkpoint
        that lies before."""
        if lease := self._leases.get(request_id):
            lease.hit_type = hit_type
            while lease.stops and lease.stops[0] <= lease.cached_tokens:
                lease.stops.popleft()

    def _release(self, release: m.ReleaseKv) -> None:
        lease = self._leases.pop(release.request_id, None)
        self._overdrawn = False
        if lease and lease is self._unanswered:
            self._unanswered = None
        elif lease and lease.counts:
            self._hits[lease.hit_type] += 1
        if lease and release.held:
            self._keep(lease, release.held)
        self._engine.submit(Forget((release.sequence_id,)), self._reply)

    # --- what is kept ---

    def _keep(self, lease: Lease, held: tuple[int, ...]) -> None:
        if self._chunks.tokens:
            held = held[: self._chunks.floor(min(len(held), len(lease.history) - 1))]
        if not held:
            return
        pieces = self._prefixes.chain(lease.root, held, lease.pieces)
        absent = self._prefixes.absent(pieces)
        if self._prefixes.bytes_of(absent) > self._bytes_to_keep():
            return
        if absent:
            self._prefixes.expect(piece.handle for piece in absent)
            self._engine.submit(StoreKv(lease.sequence_id, absent), self._reply)
        self._let_go(self._prefixes.keep(lease.root, pieces))

    def _stored(self, stored: Stored) -> None:
        """The engine has what it was asked for, or says what it could not get."""
        if self._cleared:
            self._prefixes.answered((*dict(stored.sizes), *stored.missing))
            sizes: dict[KvHandle, int] = {}
        else:
            sizes = dict(stored.sizes)
            self._let_go(self._prefixes.arrived(sizes, stored.missing, fetched=stored.sequence_id is None))
        if stored.sequence_id is None:
            self._fetched(stored, sizes)
        else:
            self._reached(stored.sequence_id, sizes)
        # What is left of a failed fetch, or a checkpoint of somebody who has left: nothing leads to it.
        self._let_go(self._prefixes.unused(sizes))
        if not self._cleared:
            self._let_go(self._prefixes.unwritten(stored.unwritten))

    def _fetched(self, stored: Stored, sizes: dict[KvHandle, int]) -> None:
        fetch, self._fetching = self._fetching, None
        if fetch and not fetch.in_vain and not stored.missing:
            self._let_go(self._prefixes.keep(fetch.entry.root, fetch.entry.pieces, sizes, memory_only=True))

    def _reached(self, sequence_id: SequenceId, sizes: dict[KvHandle, int]) -> None:
        """The engine has told of a checkpoint: if it is kept, others can begin with it."""
        for lease in self._leases.values():
            if lease.sequence_id == sequence_id:
                if lease.stops:
                    lease.stops.popleft()
                self._keep_reached(lease, sizes)
        self._prefill_worker.tell(m.CheckpointHandled(sequence_id))

    def _keep_reached(self, lease: Lease, sizes: dict[KvHandle, int]) -> None:
        here = takewhile(lambda p: p.handle in sizes or self._prefixes.memory.holds(p.handle), lease.pieces)
        reached = tuple(here)
        if reached and reached[-1].handle in sizes:
            self._let_go(self._prefixes.keep(lease.root, reached, sizes))
            self._tell_others(lease)

    def _tell_others(self, lease: Lease) -> None:
        """Sequences whose prompt waits to be computed may begin like this one."""
        for other in self._leases.values():
            if other is not lease and other.stops and other.root == lease.root and self._is_looked_up(other):
                hit = self._prefixes.find(other.root, other.history)
                if hit and hit.tokens - other.cached_tokens >= WORTH_TOKENS:
                    other.cached_tokens = hit.tokens
                    word = m.PrefixFound(other.request.request_id, hit.tokens, hit.hit_type, hit.handles)
                    self._prefill_worker.tell(word)

    def _let_go(self, freed: Freed) -> None:
        if freed.in_memory:
            self._engine.submit(DropKv(freed.in_memory), self._reply)
            self._count_out(frozenset(freed.in_memory))
        if freed.on_disk:
            self._engine.submit(EraseKv(freed.on_disk), self._reply)

    def _count_out(self, dropped: frozenset[KvHandle]) -> None:
        """The engine may yet say that it has these: it said so before it was told to drop them."""
        if self._fetching and not dropped.isdisjoint(self._fetching.entry.handles):
            self._fetching.in_vain = True
        for lease in self._leases.values():
            lease.pieces = tuple(takewhile(lambda piece: piece.handle not in dropped, lease.pieces))

    def _clear(self) -> None:
        self._count_out(frozenset(self._prefixes.clear().in_memory))
        if self._fetching:
            self._fetching.in_vain = True
        self._engine.submit(ClearKv(), self._reply)
        self._cleared.append(tuple(self._clearing))
        self._clearing = []

    def _listed(self, pieces: tuple[tuple[KvPiece, int], ...]) -> None:
        """What an earlier life left on disk, or what could not be cleared from there; the engine answers in order."""
        if self._listing:
            self._listing = False
        else:
            for cleared in self._cleared.popleft():
                self._engine.submit(GiveBack(), partial(_gone, cleared))
        self._let_go(self._prefixes.listed(pieces))

    # --- room ---

    def _pressed(self, level: PressureLevel) -> None:
        """Under pressure the prefixes give way, and what they took goes back to the system."""
        rose = level is PressureLevel.LIMIT or (level is PressureLevel.WARN and self._pressure is PressureLevel.NORMAL)
        self._pressure = level
        if rose:
            self._let_go(self._prefixes.shrink(self._bytes_to_keep()))
            self._engine.submit(GiveBack(), self._reply)

    def _bytes_to_keep(self) -> int:
        return self._leases.bytes_to_keep(self._pressure)

    def _balance(self) -> None:
        """Where those who run have come to take more than there is, who was to come in waits; if that is not enough,
        somebody goes back."""
        if self._unanswered and self._leases.are_overdrawn():
            self._refuse(self._unanswered)
        if not self._overdrawn and self._leases.are_overdrawn():
            self._overdrawn = True
            self._scheduler.tell(m.KvOverdrawn())

    def snapshot(self) -> CacheSnapshot:
        memory, disk = self._prefixes.memory, self._prefixes.disk
        return CacheSnapshot(
            strategy=self._prefixes.strategy,
            budget_bytes=self._budget.total_bytes,
            leased_bytes=self._leases.nbytes,
            stored_bytes=memory.nbytes,
            leases=len(self._leases),
            entries=len(memory),
            pieces=memory.pieces,
            hits={hit_type: self._hits[hit_type] for hit_type in HitType},
            evictions=memory.evictions,
            disk_bytes=disk.nbytes,
            disk_entries=len(disk),
        )


def _gone(cleared: Callable[[], None], _result: Result, _at: float) -> None:
    """The engine has let go of everything."""
    cleared()
