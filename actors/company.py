"""Who plays each role, and which mailboxes each of them knows. A test puts a fake in the place of any."""

from collections.abc import Callable
from dataclasses import dataclass

from actors import messages as m
from actors.base import Actor, Mailbox, Ref
from actors.cache_manager import CacheManager
from actors.decode_worker import DecodeWorker
from actors.memory_monitor import MemoryMonitor
from actors.policies.budget import KvBudget
from actors.policies.prefix_cache import PrefixCache, chosen
from actors.prefill_worker import PrefillWorker
from actors.request_admitter import RequestAdmitter
from actors.scheduler import Scheduler
from actors.snapshots import MailboxSnapshot
from runtime.engine.commands import ListKv, Result
from runtime.engine.host import Deliver, EngineRef
from runtime.settings import Settings
from runtime.types import ModelFacts


class Boxes:
    """One mailbox per actor. They outlive the actors, so Refs stay valid across restarts.

    Each is sized so that all open requests together cannot fill it: an overflow is a bug. Only the door's is without
    bound, for what comes there is not let in yet: an Admit from each HTTP call, and a Cancel for each of its requests.
    """

    def __init__(self, credits: int) -> None:
        capacity = 8 * credits + 256
        self.request_admitter = Mailbox[m.AdmitterWord]("request_admitter", None)
        self.scheduler = Mailbox[m.SchedulerWord]("scheduler", capacity)
        self.prefill_worker = Mailbox[m.PrefillWord]("prefill_worker", capacity)
        self.decode_worker = Mailbox[m.DecodeWord]("decode_worker", capacity)
        self.cache_manager = Mailbox[m.CacheWord]("cache_manager", capacity)
        self.memory_monitor = Mailbox[m.MonitorWord]("memory_monitor", capacity)
        self._engine_room = (self.scheduler, self.prefill_worker, self.decode_worker, self.cache_manager)
        self._all = (self.request_admitter, *self._engine_room, self.memory_monitor)

    def clear_engine_room(self) -> None:
        """Drop the mail of an earlier life."""
        for box in self._engine_room:
            box.clear()

    def close(self) -> None:
        for box in self._all:
            box.close()

    def snapshots(self) -> dict[str, MailboxSnapshot]:
        return {box.name: box.snapshot() for box in self._all}


@dataclass(frozen=True, slots=True)
class Life:
    """One life of the engine room: what its actors are made from."""

    epoch: int
    engine: EngineRef
    facts: ModelFacts
    budget: KvBudget
    max_concurrency: int
    settings: Settings
    boxes: Boxes


def reply_to(mailbox: Ref[m.EngineReplied]) -> Deliver:
    """Engine results come back as mail."""

    def deliver(result: Result, at: float) -> None:
        mailbox.tell(m.EngineReplied(result, at))

    return deliver


def make_request_admitter(boxes: Boxes, settings: Settings) -> Actor[m.AdmitterWord]:
    return RequestAdmitter(
        scheduler=boxes.scheduler,
        credits=settings.credits,
        memory_action=settings.memory_action,
        stall_s=settings.stall_timeout,
    )


def make_scheduler(life: Life) -> Actor[m.SchedulerWord]:
    return Scheduler(
        epoch=life.epoch,
        max_concurrency=life.max_concurrency,
        prefill_chunk_tokens=life.settings.prefill_chunk,
        max_gap_ratio=life.settings.max_gap_ratio,
        request_admitter=life.boxes.request_admitter,
        cache_manager=life.boxes.cache_manager,
        prefill_worker=life.boxes.prefill_worker,
        decode_worker=life.boxes.decode_worker,
    )


def make_prefill_worker(life: Life) -> Actor[m.PrefillWord]:
    return PrefillWorker(
        engine=life.engine,
        reply=reply_to(life.boxes.prefill_worker),
        kept=reply_to(life.boxes.cache_manager),
        scheduler=life.boxes.scheduler,
        decode_worker=life.boxes.decode_worker,
        cache_manager=life.boxes.cache_manager,
        trimmable=life.facts.trimmable,
    )


def make_decode_worker(life: Life) -> Actor[m.DecodeWord]:
    return DecodeWorker(
        engine=life.engine,
        reply=reply_to(life.boxes.decode_worker),
        scheduler=life.boxes.scheduler,
        cache_manager=life.boxes.cache_manager,
        keep_kv=life.budget.keep_bytes > 0,
    )


def make_cache_manager(life: Life) -> Actor[m.CacheWord]:
    settings, facts, budget = life.settings, life.facts, life.budget
    reply = reply_to(life.boxes.cache_manager)
    has_disk = settings.cache_dir is not None and budget.keep_bytes > 0
    if has_disk:
        life.engine.submit(ListKv(), reply)
    return CacheManager(
        engine=life.engine,
        reply=reply,
        scheduler=life.boxes.scheduler,
        prefill_worker=life.boxes.prefill_worker,
        facts=facts,
        budget=budget,
        prefixes=PrefixCache(
            strategy=chosen(settings.strategy, trimmable=facts.trimmable),
            trimmable=facts.trimmable,
            bytes_per_token=facts.kv_bytes_per_token,
            memory_bytes=budget.keep_bytes,
            disk_bytes=settings.cache_dir_mb << 20 if has_disk else 0,
        ),
        listing=has_disk,
    )


def make_memory_monitor(boxes: Boxes, settings: Settings, engine: EngineRef) -> Actor[m.MonitorWord]:
    return MemoryMonitor(
        engine=engine,
        reply=reply_to(boxes.memory_monitor),
        request_admitter=boxes.request_admitter,
        cache_manager=boxes.cache_manager,
        warn_fraction=settings.memory_warn_threshold / 100,
        limit_fraction=settings.memory_limit_threshold / 100,
    )


@dataclass(frozen=True, slots=True)
class Company:
    """A factory per role. A restart calls it again: a new life is a new object."""

    request_admitter: Callable[[Boxes, Settings], Actor[m.AdmitterWord]] = make_request_admitter
    scheduler: Callable[[Life], Actor[m.SchedulerWord]] = make_scheduler
    prefill_worker: Callable[[Life], Actor[m.PrefillWord]] = make_prefill_worker
    decode_worker: Callable[[Life], Actor[m.DecodeWord]] = make_decode_worker
    cache_manager: Callable[[Life], Actor[m.CacheWord]] = make_cache_manager
    memory_monitor: Callable[[Boxes, Settings, EngineRef], Actor[m.MonitorWord]] = make_memory_monitor
