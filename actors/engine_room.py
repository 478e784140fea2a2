"""The engine room: an engine and the four actors whose state spans its KV caches; they live and die together."""

import logging
from collections.abc import Callable
from dataclasses import replace

import anyio

from actors import messages as m
from actors.company import Boxes, Company, Life
from actors.policies.budget import kv_budget
from actors.policies.mode import mode_at_first
from actors.policies.prefix_cache import chosen
from actors.snapshots import ActorSnapshot, CacheSnapshot, SchedulerSnapshot, emptied, with_earlier
from actors.supervisor import describe, root_cause
from runtime.engine.commands import Command
from runtime.engine.host import Deliver, Host, Vitals
from runtime.settings import Settings
from runtime.types import CacheStrategy, ModelFacts, RuntimeMode

log = logging.getLogger("troupe.engine_room")


class EngineRoom:
    """Lives once per call of `live`; what outlasts a life is counted here."""

    def __init__(self, settings: Settings, make_host: Callable[[], Host], company: Company, boxes: Boxes) -> None:
        self._settings = settings
        self._make_host = make_host
        self._company = company
        self._boxes = boxes
        self._epoch = 0
        self._host: Host | None = None
        self._show: Callable[[], tuple[ActorSnapshot, ...]] = tuple
        self._shown_last: tuple[ActorSnapshot, ...] = ()
        """At the end of the last life, all earlier ones counted in."""
        self._steps_in_earlier_lives = 0
        self._clearing: list[Callable[[], None]] = []
        """Whom to tell that the cache is cleared, in this life or the next."""
        self.facts: ModelFacts | None = None
        """Of the model, as the last engine found it; None before the first."""
        self.opened = anyio.Event()
        """Set once it has been open."""

    @property
    def is_open(self) -> bool:
        return self._host is not None

    @property
    def opening(self) -> m.EngineRoomOpened | None:
        """What was said when it opened for the life that it is in; None while it is closed."""
        return m.EngineRoomOpened(self._epoch, self.facts) if self.is_open and self.facts else None

    @property
    def vitals(self) -> Vitals | None:
        """How the engine is doing; None while there is none."""
        return self._host.vitals() if self._host else None

    async def live(self) -> None:
        """One life: a new engine, new actors, and nothing left of the last one. Never returns normally."""
        cause = "the server is shutting down"
        self._boxes.clear_engine_room()
        try:
            async with anyio.create_task_group() as group:
                host = self._make_host()
                facts: ModelFacts = await group.start(host.run)
                self._staff(group, host, facts)
        except Exception as error:
            cause = describe(root_cause(error))
            raise
        finally:
            self._steps_in_earlier_lives = self.steps_executed
            self._shown_last = self.snapshots() if self.is_open else self._shown_last
            self._host, self._show = None, tuple
            self._boxes.request_admitter.tell(m.EngineRoomClosed(cause))

    def _staff(self, group: anyio.abc.TaskGroup, host: Host, facts: ModelFacts) -> None:
        """Make the four actors, start them, and say that the room is open."""
        self._epoch += 1
        life = self._life(host, facts)
        boxes, company = self._boxes, self._company
        scheduler = company.scheduler(life)
        prefill_worker = company.prefill_worker(life)
        decode_worker = company.decode_worker(life)
        cache_manager = company.cache_manager(life)
        group.start_soon(boxes.scheduler.serve, scheduler)
        group.start_soon(boxes.prefill_worker.serve, prefill_worker)
        group.start_soon(boxes.decode_worker.serve, decode_worker)
        group.start_soon(boxes.cache_manager.serve, cache_manager)
        actors = (scheduler, prefill_worker, decode_worker, cache_manager)
        self._show = lambda: tuple(actor.snapshot() for actor in actors)
        _say_strategy(life)
        _say_if_little_is_free(life)
        self._host, self.facts = host, life.facts
        self.opened.set()
        opening = m.EngineRoomOpened(self._epoch, life.facts)
        boxes.request_admitter.tell(opening)
        if self._settings.batch_divergence_monitor:
            boxes.divergence_probe.tell(opening)
        for cleared in self._clearing:
            self._tell_to_clear(cleared)

    def _life(self, host: Host, facts: ModelFacts) -> Life:
        settings = self._settings
        budget = kv_budget(
            facts,
            total_mb=settings.kv_memory_mb,
            keep_mb=settings.cache_memory_mb if _can_keep(settings, facts) else 0,
            keep_fraction=settings.cache_memory_percent,
            context_tokens=settings.effective_context_tokens,
        )
        last = next((each for each in self._shown_last if isinstance(each, SchedulerSnapshot)), None)
        mode = mode_at_first(
            settings.mode, batchable=facts.batchable, was_batched=bool(last and last.mode is RuntimeMode.BATCHED)
        )
        return Life(
            epoch=self._epoch,
            engine=host,
            facts=replace(facts, context_tokens=budget.context_tokens),
            budget=budget,
            max_concurrency=1 if mode is RuntimeMode.SIMPLE else settings.max_concurrency,
            mode=mode,
            serialised=bool(last and last.serialised),
            settings=settings,
            boxes=self._boxes,
        )

    def submit(self, command: Command, deliver: Deliver) -> None:
        """An `EngineRef` for observers, to whichever engine lives; while none does, commands are dropped."""
        if self._host is not None:
            self._host.submit(command, deliver)

    def clear_cache(self, cleared: Callable[[], None]) -> None:
        """Let go of all kept prefixes: in this life or, if the engine dies meanwhile, in the next."""
        self._clearing.append(cleared)
        if self.is_open:
            self._tell_to_clear(cleared)

    def _tell_to_clear(self, cleared: Callable[[], None]) -> None:
        def done() -> None:
            self._clearing.remove(cleared)
            cleared()

        self._boxes.cache_manager.tell(m.ClearCache(done))

    def snapshots(self) -> tuple[ActorSnapshot, ...]:
        """Of the actors that live now, what happened in earlier lives counted in; while none do, what the cache was
        like when the last ones died, but that memory holds nothing."""
        if self.is_open:
            return tuple(with_earlier(shown, self._shown_last) for shown in self._show())
        return tuple(emptied(shown) for shown in self._shown_last if isinstance(shown, CacheSnapshot))

    @property
    def steps_executed(self) -> int:
        """Decode steps in all lives."""
        now = sum(shown.decode_steps for shown in self._show() if isinstance(shown, SchedulerSnapshot))
        return self._steps_in_earlier_lives + now


def _can_keep(settings: Settings, facts: ModelFacts) -> bool:
    """Where prompts come in fixed chunks a kept prefix has to end where one does."""
    return facts.trimmable or not settings.chunk_tokens


def _say_strategy(life: Life) -> None:
    """What was chosen of the cache's strategies, and whose choice it was."""
    wanted = life.settings.strategy
    strategy = chosen(wanted, trimmable=life.facts.trimmable)
    why = "can be cut" if life.facts.trimmable else "cannot be cut: whole states of them are kept"
    if strategy is not wanted and wanted is not CacheStrategy.AUTO:
        log.warning("the prefix cache is %s, not %s: this model's KV caches %s", strategy, wanted, why)
    elif life.budget.keep_bytes:
        mb = life.budget.keep_bytes >> 20
        log.info("the prefix cache is %s, %d MiB at most: this model's KV caches %s", strategy, mb, why)
    elif not _can_keep(life.settings, life.facts):
        log.warning("the prefix cache is off: this model's KV caches %s, not at the ends of fixed chunks", why)
    else:
        log.info("the prefix cache is off: it may take no memory")


def _say_if_little_is_free(life: Life) -> None:
    if life.budget.more_than_free:
        mb = life.budget.total_bytes >> 20
        log.warning("hardly any memory is free: KV caches may take %d MiB all the same; others may be using it", mb)
