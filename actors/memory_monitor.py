"""MemoryMonitor: how near the machine is to running out of memory."""

import logging
from typing import assert_never

from actors import messages as m
from actors.base import Actor, Ref
from actors.policies.pressure import pressure_level
from actors.snapshots import MonitorSnapshot
from runtime.engine.commands import MemoryReport, MemoryReported
from runtime.engine.host import Deliver, EngineRef
from runtime.types import MemoryUsage, PressureLevel

log = logging.getLogger("troupe.memory_monitor")


class MemoryMonitor(Actor[m.MonitorWord]):
    """Has the engine measure at every tick, and tells who must act how near the limit is."""

    def __init__(
        self,
        *,
        engine: EngineRef,
        reply: Deliver,
        request_admitter: Ref[m.PressureMeasured],
        cache_manager: Ref[m.PressureMeasured],
        warn_fraction: float,
        limit_fraction: float,
    ) -> None:
        self._engine = engine
        self._reply = reply
        self._request_admitter = request_admitter
        self._cache_manager = cache_manager
        self._warn_fraction = warn_fraction
        self._limit_fraction = limit_fraction
        self._level = PressureLevel.NORMAL
        self._usage: MemoryUsage | None = None

    def receive(self, message: m.MonitorWord) -> None:
        match message:
            case m.Tick():
                self._engine.submit(MemoryReport(), self._reply)
            case m.EngineReplied(MemoryReported(usage)):
                self._measured(usage)
            case m.EngineReplied():
                pass
            case _:
                assert_never(message)

    def _measured(self, usage: MemoryUsage) -> None:
        self._usage = usage
        used = usage.system_used_fraction
        level = pressure_level(used, warn=self._warn_fraction, limit=self._limit_fraction, last=self._level)
        if level is not self._level:
            log.warning("memory pressure went from %s to %s: %.0f %% in use", self._level, level, used * 100)
        self._level = level
        # Each time: whoever hears it may be in another life than the last time, and so may this actor.
        self._request_admitter.tell(m.PressureMeasured(level))
        self._cache_manager.tell(m.PressureMeasured(level))

    def snapshot(self) -> MonitorSnapshot:
        return MonitorSnapshot(self._level, self._usage)
