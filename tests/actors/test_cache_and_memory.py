"""CacheManager leases and keeps; MemoryMonitor tells who must act."""

from actors import messages as m
from actors.cache_manager import MOST_KEPT, CacheManager
from actors.memory_monitor import MemoryMonitor
from runtime.engine import commands as c
from runtime.types import HitType, KvHandle, MemoryUsage, PressureLevel, RequestId
from tests.fakes import Recorder, RecordingEngine, no_reply


class Keeping:
    """Ten bytes a token, room for a hundred tokens, sixty of them for kept prefixes."""

    def __init__(self) -> None:
        self.engine = RecordingEngine()
        self.scheduler = Recorder[m.KvLeased | m.KvRefused]()
        self.actor = CacheManager(
            engine=self.engine,
            reply=no_reply,
            scheduler=self.scheduler,
            bytes_per_token=10,
            budget_bytes=1000,
            keep_bytes=600,
        )

    def lease(self, name: str, history: tuple[int, ...], total: int = 10) -> m.KvLeased | m.KvRefused:
        self.actor.receive(m.LeaseKv(RequestId(name), history, total))
        (answer,) = self.scheduler.take()
        return answer

    def release(self, name: str, handle: int = 0, ids: tuple[int, ...] = ()) -> None:
        kept = m.StoredKv(KvHandle(handle), ids) if ids else None
        self.actor.receive(m.ReleaseKv(RequestId(name), kept))

    def dropped(self) -> list[int]:
        return [handle for command in self.engine.take() if isinstance(command, c.DropKv) for handle in command.handles]


def test_what_does_not_fit_beside_others_is_refused_until_they_are_gone() -> None:
    keeping = Keeping()
    assert isinstance(keeping.lease("r1", (1, 2), total=60), m.KvLeased)
    assert isinstance(keeping.lease("r2", (1, 2), total=50), m.KvRefused)
    keeping.release("r1")
    assert isinstance(keeping.lease("r2", (1, 2), total=50), m.KvLeased)


def test_a_lease_that_no_prefix_may_serve_is_no_look_up() -> None:
    keeping = Keeping()
    keeping.release("r0", 1, (1, 2, 3))
    assert keeping.lease("r1", (), total=5) == m.KvLeased(RequestId("r1"), 0, HitType.MISS, None)
    assert keeping.actor.snapshot().lookups == 0


def test_every_row_of_a_batch_costs_as_much_as_the_longest() -> None:
    keeping = Keeping()
    assert isinstance(keeping.lease("long", (1, 2), total=40), m.KvLeased)
    assert isinstance(keeping.lease("short", (1, 2), total=5), m.KvLeased)
    assert keeping.actor.snapshot().leased_bytes == 2 * 40 * 10
    assert isinstance(keeping.lease("another", (1, 2), total=5), m.KvRefused)


def test_kept_prefixes_are_bounded_in_number_too() -> None:
    keeping = Keeping()
    for handle in range(MOST_KEPT + 3):
        keeping.actor._bytes_per_token = 0
        keeping.release("r", handle, (1000 + handle,))
    assert keeping.actor.snapshot().entries == MOST_KEPT
    assert keeping.dropped() == [0, 1, 2]


def test_a_sequence_alone_is_never_refused() -> None:
    assert isinstance(Keeping().lease("r1", (1, 2), total=1000), m.KvLeased)


def test_an_ended_sequence_serves_the_next_that_begins_like_it() -> None:
    keeping = Keeping()
    keeping.release("r1", 7, (1, 2, 3, 4))
    assert keeping.lease("r2", (1, 2, 3, 4, 5)) == m.KvLeased(RequestId("r2"), 4, HitType.PREFIX, KvHandle(7))
    assert keeping.lease("r3", (1, 2, 9)) == m.KvLeased(RequestId("r3"), 2, HitType.LCP, KvHandle(7))
    assert keeping.lease("r4", (9, 2, 3)) == m.KvLeased(RequestId("r4"), 0, HitType.MISS, None)
    shown = keeping.actor.snapshot()
    assert (shown.lookups, shown.hits) == (3, 2)


def test_the_longest_common_prefix_wins() -> None:
    keeping = Keeping()
    keeping.release("r1", 7, (1, 2, 3, 4))
    keeping.release("r2", 8, (1, 2, 9, 9))
    answer = keeping.lease("r3", (1, 2, 3, 5))
    assert isinstance(answer, m.KvLeased)
    assert answer.kv == KvHandle(7)


def test_a_longer_sequence_takes_the_place_of_its_own_beginning() -> None:
    keeping = Keeping()
    keeping.release("r1", 7, (1, 2))
    keeping.release("r2", 8, (1, 2, 3))
    assert keeping.dropped() == [7]


def test_the_least_recently_used_prefix_goes_first() -> None:
    keeping = Keeping()
    for handle in (1, 2, 3):
        keeping.release("r", handle, tuple([handle] * 20))
    keeping.lease("hit", tuple([1] * 21))
    keeping.release("hit")
    keeping.release("r", 4, tuple([4] * 20))
    assert keeping.dropped() == [2]


def test_kept_prefixes_give_way_to_leases_but_never_one_in_use() -> None:
    keeping = Keeping()
    keeping.release("r", 1, tuple([1] * 30))
    keeping.release("r", 2, tuple([2] * 30))
    assert isinstance(keeping.lease("user", tuple([1] * 31), total=35), m.KvLeased)
    assert isinstance(keeping.lease("big", (9, 9), total=35), m.KvLeased)
    assert keeping.dropped() == [2]


def test_under_pressure_what_nobody_uses_is_let_go() -> None:
    keeping = Keeping()
    keeping.release("r", 1, (1, 2, 3))
    keeping.release("r", 2, (4, 5, 6))
    keeping.lease("user", (1, 2, 3, 4))
    keeping.actor.receive(m.PressureChanged(PressureLevel.WARN))
    assert keeping.dropped() == [2]


def usage(used: float) -> m.EngineReplied:
    return m.EngineReplied(c.MemoryReported(MemoryUsage(1, 2, 3, 4, 100, used)), at=0.0)


def test_a_level_is_told_when_it_changes_and_only_then() -> None:
    engine = RecordingEngine()
    admitter, cache = Recorder[m.PressureChanged](), Recorder[m.PressureChanged]()
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
    told = [m.PressureChanged(PressureLevel.LIMIT), m.PressureChanged(PressureLevel.NORMAL)]
    assert admitter.heard == told
    assert cache.heard == told
