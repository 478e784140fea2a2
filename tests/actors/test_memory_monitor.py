"""MemoryMonitor tells who must act."""

from actors import messages as m
from actors.memory_monitor import MemoryMonitor
from runtime.engine import commands as c
from runtime.types import MemoryUsage, PressureLevel
from tests.fakes import Recorder, RecordingEngine, no_reply


def usage(used: float) -> m.EngineReplied:
    return m.EngineReplied(c.MemoryReported(MemoryUsage(1, 2, 3, 4, 100, used)), at=0.0)


def test_the_level_is_told_at_every_measurement_to_whoever_lives_then() -> None:
    engine = RecordingEngine()
    admitter, cache = Recorder[m.PressureMeasured](), Recorder[m.PressureMeasured]()
    monitor = MemoryMonitor(
        engine=engine,
        reply=no_reply,
        request_admitter=admitter,
        cache_manager=cache,
        warn_fraction=0.7,
        limit_fraction=0.85,
    )
    monitor.receive(m.Tick(0.0))
    assert engine.take() == [c.MemoryReport()]
    for used in (0.5, 0.9, 0.9, 0.5):
        monitor.receive(usage(used))
    levels = [PressureLevel.NORMAL, PressureLevel.LIMIT, PressureLevel.LIMIT, PressureLevel.NORMAL]
    told = [m.PressureMeasured(level) for level in levels]
    assert admitter.heard == told
    assert cache.heard == told
