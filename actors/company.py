"""Who plays each role, and which mailboxes each of them knows. A test puts a fake in the place of any."""

from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex

from actors import messages as m
from actors.base import Actor, Mailbox, Ref
from actors.cache_manager import CacheManager
from actors.decode_worker import DecodeWorker
from actors.divergence_probe import DivergenceProbe
from actors.memory_monitor import MemoryMonitor
from actors.policies.budget import KvBudget
from actors.policies.chunks import Chunks
from actors.policies.prefix_cache import PrefixCache, chosen
from actors.policies.probing import MOST_AT_ONCE
from actors.prefill_worker import PrefillWorker
from actors.request_admitter import RequestAdmitter
from actors.scheduler import Scheduler
from actors.snapshots import MailboxSnapshot
from runtime.engine.commands import ListKv, Result
from runtime.engine.host import Deliver, EngineRef
from runtime.settings import Settings
from runtime.types import DivergenceAction, ModelFacts, RuntimeMode


class Boxes:
    """One mailbox per actor. They outlive the actors, so Refs stay valid across restarts.

    Each is sized so that all open requests and probes together cannot fill it: an overflow is a bug. Two are without
    bound: the door's, for what comes there is not let in yet, an Admit from each HTTP call, and a Cancel for each
    of its requests; and DivergenceProbe's, which samples of the traffic come to even while it is being restarted.
    """

    def __init__(self, credits: int) -> None:
        capacity = 8 * (credits + MOST_AT_ONCE) + 256
        self.request_admitter = Mailbox[m.AdmitterWord]("request_admitter", None)
        self.scheduler = Mailbox[m.SchedulerWord]("scheduler", capacity)
        self.prefill_worker = Mailbox[m.PrefillWord]("prefill_worker", capacity)
        self.decode_worker = Mailbox[m.DecodeWord]("decode_worker", capacity)
        self.cache_manager = Mailbox[m.CacheWord]("cache_manager", capacity)
        self.memory_monitor = Mailbox[m.MonitorWord]("memory_monitor", capacity)
        self.divergence_probe = Mailbox[m.ProbeWord]("divergence_probe", None)
        self._engine_room = (self.scheduler, self.prefill_worker, self.decode_worker, self.cache_manager)
        self._all = (self.request_admitter, *self._engine_room, self.memory_monitor, self.divergence_probe)

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
    mode: RuntimeMode
    """What it begins with: AUTO is one at a time that has not had company yet."""
    serialised: bool
    """Whether requests ran one at a time, because answers diverged, when the last life ended."""
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
        mode=life.mode,
        mode_threshold=life.settings.runtime_mode_threshold,
        may_serialise=life.settings.batch_divergence_action is DivergenceAction.SERIALIZE,
        serialised=life.serialised,
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
        chunks=Chunks(life.settings.chunk_tokens),
    )


def make_decode_worker(life: Life) -> Actor[m.DecodeWord]:
    return DecodeWorker(
        engine=life.engine,
        reply=reply_to(life.boxes.decode_worker),
        scheduler=life.boxes.scheduler,
        cache_manager=life.boxes.cache_manager,
        keep_kv=life.budget.keep_bytes > 0,
        divergence_probe=life.boxes.divergence_probe,
        sample_every=life.settings.batch_divergence_sample if life.settings.batch_divergence_monitor else 0,
    )


def make_cache_manager(life: Life) -> Actor[m.CacheWord]:
    settings, facts, budget = life.settings, life.facts, life.budget
    reply = reply_to(life.boxes.cache_manager)
    chunks = Chunks(settings.chunk_tokens)
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
            chunks=chunks,
        ),
        chunks=chunks,
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


def make_divergence_probe(boxes: Boxes, settings: Settings) -> Actor[m.ProbeWord]:
    return DivergenceProbe(
        name=f"probe-{token_hex(4)}",
        mailbox=boxes.divergence_probe,
        scheduler=boxes.scheduler,
        mode=settings.mode,
        max_concurrency=settings.max_concurrency,
        interval_s=settings.batch_divergence_interval,
        threshold=settings.batch_divergence_threshold,
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
    divergence_probe: Callable[[Boxes, Settings], Actor[m.ProbeWord]] = make_divergence_probe
