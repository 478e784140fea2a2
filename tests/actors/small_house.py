"""The whole company without an event loop: mail, engine and readers move one at a time, in any order a test draws."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeVar

from actors import messages as m
from actors.base import Actor, Ref
from actors.cache_manager import CacheManager
from actors.company import reply_to
from actors.decode_worker import DecodeWorker
from actors.policies.budget import KvBudget
from actors.policies.chunks import Chunks
from actors.policies.prefix_cache import PrefixCache
from actors.prefill_worker import PrefillWorker
from actors.request_admitter import RequestAdmitter
from actors.scheduler import Scheduler
from runtime.engine import commands as c
from runtime.types import CacheStrategy, KvHandle, KvPiece, MemoryAction, ModelFacts, RuntimeMode
from tests.actors.slow_engine import SlowEngine
from tests.fakes import Client, FakeEngine, Recorder

M = TypeVar("M")


class Box(Generic[M]):
    """A mailbox whose mail is handed over one word at a time."""

    def __init__(self) -> None:
        self.mail: deque[M] = deque()
        self.actor: Actor[M]

    def tell(self, message: M) -> None:
        self.mail.append(message)

    def hand_over(self) -> None:
        self.actor.receive(self.mail.popleft())


@dataclass(frozen=True)
class Plan:
    """What a small house is like."""

    strategy: CacheStrategy
    facts: ModelFacts
    room_tokens: int
    keep_tokens: int
    disk_tokens: int
    concurrency: int
    mode: RuntimeMode = RuntimeMode.BATCHED
    chunk_tokens: int = 0

    def bytes_of(self, tokens: int) -> int:
        return tokens * self.facts.kv_bytes_per_token


class SmallHouse:
    """Opens at once; `step` lets one thing happen, of all that could."""

    def __init__(self, plan: Plan, random: Random) -> None:
        self._plan = plan
        self._random = random
        self.epoch = 0
        self.client = Client(capacity=random.choice([1, 3, 1000]))
        self.disk: dict[KvHandle, KvPiece] | None = {} if plan.disk_tokens else None
        self.door: Box[m.AdmitterWord] = Box()
        self.admitter = RequestAdmitter(
            scheduler=_Late(lambda: self.line),
            credits=1000,
            memory_action=MemoryAction.WARN,
            stall_s=1e9,
        )
        self.door.actor = self.admitter
        self.probe = Recorder[m.ProbeCandidate]()
        self.preemptions = 0
        self.open()

    def open(self) -> None:
        """The engine and its four actors, new."""
        self.epoch += 1
        self.fake = FakeEngine(self._plan.facts, disk=self.disk, chunk_tokens=self._plan.chunk_tokens)
        self.engine = SlowEngine(self.fake)
        self.line: Box[m.SchedulerWord] = Box()
        self.prefill: Box[m.PrefillWord] = Box()
        self.decode: Box[m.DecodeWord] = Box()
        self.cache: Box[m.CacheWord] = Box()
        self.scheduler = self._scheduler()
        self.cache_manager = self._cache_manager()
        self.line.actor = self.scheduler
        self.prefill.actor = PrefillWorker(
            engine=self.engine,
            reply=reply_to(self.prefill),
            kept=reply_to(self.cache),
            scheduler=self.line,
            decode_worker=self.decode,
            cache_manager=self.cache,
            trimmable=self._plan.facts.trimmable,
            chunks=Chunks(self._plan.chunk_tokens),
        )
        self.decode.actor = DecodeWorker(
            engine=self.engine,
            reply=reply_to(self.decode),
            scheduler=self.line,
            cache_manager=self.cache,
            divergence_probe=self.probe,
            keep_kv=self._plan.keep_tokens > 0,
            sample_every=0,
        )
        self.cache.actor = self.cache_manager
        self.door.tell(m.EngineRoomOpened(self.epoch, self._plan.facts))

    def _scheduler(self) -> Scheduler:
        return Scheduler(
            epoch=self.epoch,
            max_concurrency=self._plan.concurrency,
            mode=self._plan.mode,
            mode_threshold=2,
            may_serialise=True,
            serialised=False,
            prefill_chunk_tokens=128,
            max_gap_ratio=2.0,
            request_admitter=self.door,
            cache_manager=self.cache,
            prefill_worker=self.prefill,
            decode_worker=self.decode,
        )

    def _cache_manager(self) -> CacheManager:
        plan = self._plan
        self.prefixes = PrefixCache(
            strategy=plan.strategy,
            trimmable=plan.facts.trimmable,
            bytes_per_token=plan.facts.kv_bytes_per_token,
            memory_bytes=plan.bytes_of(plan.keep_tokens),
            disk_bytes=plan.bytes_of(plan.disk_tokens),
            chunks=Chunks(plan.chunk_tokens),
        )
        reply = reply_to(self.cache)
        if self.disk is not None:
            self.engine.submit(c.ListKv(), reply)
        return CacheManager(
            engine=self.engine,
            reply=reply,
            scheduler=self.line,
            prefill_worker=self.prefill,
            facts=plan.facts,
            budget=KvBudget(
                plan.bytes_of(plan.room_tokens), plan.bytes_of(plan.keep_tokens), plan.facts.context_tokens
            ),
            prefixes=self.prefixes,
            chunks=Chunks(plan.chunk_tokens),
            listing=self.disk is not None,
        )

    def die(self) -> None:
        """The engine room closes and opens again; what is on disk stays."""
        self.preemptions = self.scheduler.snapshot().preemptions
        self.door.tell(m.EngineRoomClosed("planted"))
        self.open()

    def step(self) -> bool:
        """Let one of the things happen that could; False if nothing is left."""
        could: list[Callable[[], object]] = []
        could += [self.door.hand_over] if self.door.mail else []
        could += [self.line.hand_over] if self.line.mail else []
        could += [self.prefill.hand_over] if self.prefill.mail else []
        could += [self.decode.hand_over] if self.decode.mail else []
        could += [self.cache.hand_over] if self.cache.mail else []
        could += [self.engine.work] if self.engine.waiting else []
        could += [self.engine.deliver] if self.engine.done else []
        could += [sink.took for sink in self.client.sinks.values() if sink.unread][:1]
        if could:
            self._random.choice(could)()
        return bool(could)


class _Late(Generic[M]):
    """A Ref to whichever box there is at the time."""

    def __init__(self, box: Callable[[], Ref[M]]) -> None:
        self._box = box

    def tell(self, message: M) -> None:
        self._box().tell(message)
