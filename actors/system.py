"""The house: who is supervised by whom, how it opens and closes, and what can be seen of it."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.abc

from actors import messages as m
from actors import snapshots as s
from actors.base import Actor
from actors.clock import Clock, tick
from actors.company import Boxes, Company
from actors.engine_room import EngineRoom
from actors.policies.restarts import Intensity
from actors.supervisor import Supervisor, describe, root_cause
from actors.troubles import Troubles
from runtime.engine.host import Host
from runtime.settings import Settings
from runtime.types import CancelCause, ModelFacts, RejectReason, RequestId

OBSERVERS_INTENSITY = Intensity(restarts=10, within_s=600.0)
PROBE_TICK_S = 1.0
"""How late a round of probes may begin, at most."""
ADMITTER_TICK_S = 0.25
"""How late a deadline or a stall may be noticed."""
CLOSED_RETRY_S = 10.0
"""When to come back to a house that has closed: its service manager may have started another by then."""
SHUTDOWN_GRACE_S = 5.0
"""How long requests that are cancelled at the end of a drain have to get their last word."""

S = TypeVar("S", bound=s.ActorSnapshot)


class House:
    """The company under its supervision tree, and its front desk (a `FrontDesk` for the text floor).

    root              any death here ends the house
    ├─ engine_room    one_for_all: the engine's host, CacheManager, DecodeWorker, PrefillWorker, Scheduler
    ├─ request_admitter
    └─ observers      one_for_one: MemoryMonitor, and DivergenceProbe if it is wanted
    """

    def __init__(
        self,
        settings: Settings,
        make_host: Callable[[], Host],
        *,
        company: Company | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._settings = settings
        self._company = company or Company()
        self._clock = clock
        self._boxes = Boxes(settings.credits)
        self._engine_room = Supervisor("engine_room", _intensity(settings), clock)
        self._observers = Supervisor("observers", OBSERVERS_INTENSITY, clock)
        self._room = EngineRoom(settings, make_host, self._company, self._boxes)
        self._admitter = self._company.request_admitter(self._boxes, settings)
        self._monitor: Actor[m.MonitorWord] | None = None
        self._probe: Actor[m.ProbeWord] | None = None
        self._probe_prompts = m.ProbePrompts(())
        self._troubles = Troubles(clock)
        self._started_at = clock()
        self._closed = False

    async def run(self) -> None:
        """Keep the house open until cancelled.

        Raises (inside an ExceptionGroup):
            ModelError: the model cannot be loaded.
            RestartsExhausted: the engine room died too often.
            Exception: whatever RequestAdmitter died of.
        """
        cause = "the server is shutting down"
        logger = logging.getLogger("troupe")
        logger.addHandler(self._troubles)
        try:
            async with anyio.create_task_group() as root:
                root.start_soon(self._boxes.request_admitter.serve, self._admitter)
                root.start_soon(self._tell_time)
                root.start_soon(self._engine_room.keep_alive, self._room.live)
                root.start_soon(self._observers.keep_alive, self._watch_memory)
                if self._settings.batch_divergence_monitor:
                    root.start_soon(self._observers.keep_alive, self._watch_answers)
        except Exception as error:
            cause = describe(root_cause(error))
            raise
        finally:
            self._closed = True
            self._admitter.receive(m.HouseClosing(cause))
            self._boxes.close()
            logger.removeHandler(self._troubles)

    async def opened(self) -> None:
        """Return once the engine room has opened for the first time."""
        await self._room.opened.wait()

    async def _tell_time(self) -> None:
        await tick(self._boxes.request_admitter, every_s=ADMITTER_TICK_S, clock=self._clock)

    async def _watch_memory(self) -> None:
        box = self._boxes.memory_monitor
        self._monitor = self._company.memory_monitor(self._boxes, self._settings, self._room)
        async with anyio.create_task_group() as group:
            group.start_soon(box.serve, self._monitor)
            await self.opened()  # before, there is nothing to measure
            await tick(box, every_s=self._settings.memory_monitor_interval, clock=self._clock)

    async def _watch_answers(self) -> None:
        box = self._boxes.divergence_probe
        self._probe = self._company.divergence_probe(self._boxes, self._settings)
        box.tell(self._probe_prompts)
        if opening := self._room.opening:
            box.tell(opening)
        async with anyio.create_task_group() as group:
            group.start_soon(box.serve, self._probe)
            every_s = min(PROBE_TICK_S, self._settings.batch_divergence_interval / 10)
            await tick(box, every_s=every_s, clock=self._clock)

    async def drain(self, within_s: float) -> None:
        """Let nobody in any more; return once everyone is out. Who is still inside after `within_s` is cancelled."""
        empty = anyio.Event()
        self._boxes.request_admitter.tell(m.Drain(empty.set))
        with anyio.move_on_after(within_s):
            await empty.wait()
        for request_id in self._open_requests():
            self.cancel(request_id, CancelCause.SHUTDOWN)
        with anyio.move_on_after(SHUTDOWN_GRACE_S):
            await empty.wait()

    def _open_requests(self) -> tuple[RequestId, ...]:
        shown = self._admitter.snapshot()
        return shown.open_requests if isinstance(shown, s.AdmitterSnapshot) else ()

    # --- the front desk ---

    def now(self) -> float:
        return self._clock()

    def facts(self) -> ModelFacts | None:
        return self._room.facts

    def admit(self, requests: tuple[m.Request, ...]) -> None:
        if self._closed:
            for request in requests:
                request.sink.last_word(m.Rejected(request.request_id, RejectReason.DRAINING, CLOSED_RETRY_S))
        else:
            self._boxes.request_admitter.tell(m.Admit(requests))

    def cancel(self, request_id: RequestId, cause: CancelCause) -> None:
        self._boxes.request_admitter.tell(m.Cancel(request_id, cause))

    def clear_cache(self, cleared: Callable[[], None]) -> None:
        self._room.clear_cache(cleared)

    def probe_with(self, prompts: tuple[tuple[int, ...], ...]) -> None:
        """Give the DivergenceProbe prompts such as clients send, of at least two ids each; nothing without one."""
        self._probe_prompts = m.ProbePrompts(prompts)
        if self._settings.batch_divergence_monitor:
            self._boxes.divergence_probe.tell(self._probe_prompts)

    def snapshot(self) -> s.HouseSnapshot:
        """The state of every actor between two handlers."""
        shown = (self._admitter.snapshot(), *self._room.snapshots())
        shown += tuple(observer.snapshot() for observer in (self._monitor, self._probe) if observer)
        now = self._clock()
        return s.HouseSnapshot(
            at=now,
            uptime_s=now - self._started_at,
            room=self._room_state(),
            restarts={each.name: each.restarts for each in (self._engine_room, self._observers)},
            facts=self._room.facts,
            mailboxes=self._boxes.snapshots(),
            admitter=_only(s.AdmitterSnapshot, shown),
            scheduler=_only(s.SchedulerSnapshot, shown),
            prefill=_only(s.PrefillSnapshot, shown),
            decode=_only(s.DecodeSnapshot, shown),
            cache=_only(s.CacheSnapshot, shown),
            monitor=_only(s.MonitorSnapshot, shown),
            steps_executed=self._room.steps_executed,
            probe=_only(s.ProbeSnapshot, shown),
            engine=self._room.vitals,
            troubles=self._troubles.recent(),
        )

    def _room_state(self) -> s.RoomState:
        if self._room.is_open:
            return s.RoomState.READY
        return s.RoomState.RESTARTING if self._engine_room.restarts else s.RoomState.LOADING


def _intensity(settings: Settings) -> Intensity:
    return Intensity(settings.engine_restarts, settings.engine_restart_window)


def _only(kind: type[S], shown: tuple[s.ActorSnapshot, ...]) -> S | None:
    """The snapshot of that kind, or None where its actor does not live (or a fake stands in for it)."""
    return next((each for each in shown if isinstance(each, kind)), None)
