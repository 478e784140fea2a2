"""CacheManager: what an earlier life left on disk, and what is read from there."""

from collections.abc import Sequence

from actors import messages as m
from actors.policies.pieces import block_stops, cut, root_of
from runtime.engine import commands as c
from runtime.types import CacheStrategy, HitType, KvPiece, PressureLevel, RequestId, SequenceId
from tests.actors.keeping import Keeping


def ids(first: int, length: int) -> tuple[int, ...]:
    """Ids that no other `first` gives."""
    return (first, *range(100, 99 + length))


def left(*sequences: Sequence[int]) -> list[KvPiece]:
    """What an earlier life had on disk of these, in blocks."""
    return [piece for each in sequences for piece in cut(root_of(""), tuple(each), block_stops(len(each)))]


def answers(keeping: Keeping) -> list[tuple[str, int, HitType]]:
    """Whom the Scheduler was told to stage since last asked, and with what."""
    return [(w.request_id, w.cached_tokens, w.hit_type) for w in keeping.scheduler.take() if isinstance(w, m.KvLeased)]


def submitted(keeping: Keeping) -> list[str]:
    return [type(command).__name__ for command in keeping.engine.take()]


def test_nobody_is_served_before_it_is_known_what_is_on_disk() -> None:
    keeping = Keeping(disk_tokens=2000, disk=left(ids(1, 150)))
    keeping.ask("r1", ids(1, 200))
    assert answers(keeping) == []
    assert submitted(keeping) == ["ListKv"]
    keeping.engine.catch_up()
    assert answers(keeping) == [("r1", 150, HitType.PREFIX)]
    assert submitted(keeping) == ["FetchKv", "LoadKv"]


def test_nothing_is_fetched_twice_while_other_mail_comes() -> None:
    keeping = Keeping(disk_tokens=2000, disk=left(ids(1, 150)))
    keeping.engine.catch_up()
    keeping.engine.take()
    keeping.ask("r1", ids(1, 200))
    keeping.actor.receive(m.KvGrew(RequestId("r1"), 201))
    assert submitted(keeping) == ["FetchKv"]


def test_what_was_fetched_is_in_memory_for_the_next() -> None:
    keeping = Keeping(disk_tokens=2000, disk=left(ids(1, 150)))
    keeping.ask("r1", ids(1, 200))
    keeping.engine.catch_up()
    keeping.engine.take()
    keeping.ask("r2", (*ids(1, 150), 7))
    assert submitted(keeping) == ["LoadKv"]
    assert answers(keeping)[-1] == ("r2", 150, HitType.PREFIX)
    shown = keeping.actor.snapshot()
    assert (shown.stored_bytes, shown.disk_bytes, shown.disk_entries) == (1500, 1500, 1)


def test_only_what_is_not_in_memory_is_fetched() -> None:
    keeping = Keeping(disk_tokens=2000, disk=left((*ids(1, 128), *range(64))))
    keeping.keep((*ids(1, 64), 7))
    keeping.ask("r1", (*ids(1, 128), *range(64), 8))
    (fetch,) = [command for command in keeping.engine.take() if isinstance(command, c.FetchKv)]
    assert len(fetch.handles) == 2
    keeping.engine.catch_up()
    assert answers(keeping)[-1] == ("r1", 192, HitType.PREFIX)


def test_what_is_hardly_better_than_memory_is_not_read() -> None:
    keeping = Keeping(disk_tokens=2000, disk=left(ids(1, 150)))
    keeping.keep((*ids(1, 100), 7))
    keeping.engine.catch_up()
    keeping.scheduler.take()
    keeping.engine.take()
    keeping.ask("r1", (*ids(1, 150), 8))
    assert answers(keeping) == [("r1", 100, HitType.LCP)]
    assert submitted(keeping) == ["LoadKv"]


def test_what_is_larger_than_the_memory_is_not_read() -> None:
    keeping = Keeping(keep_tokens=100, disk_tokens=2000, disk=left(ids(1, 150)))
    keeping.ask("r1", ids(1, 200))
    keeping.engine.catch_up()
    assert answers(keeping) == [("r1", 0, HitType.MISS)]
    assert "FetchKv" not in submitted(keeping)


def test_what_memory_may_not_keep_at_this_moment_is_not_read() -> None:
    keeping = Keeping(room_tokens=2 * 256, keep_tokens=400, disk_tokens=2000, disk=left(ids(1, 150)))
    keeping.engine.catch_up()
    keeping.lease("r1", ids(2, 10))
    keeping.ask("r2", ids(1, 200))
    assert answers(keeping) == [("r2", 0, HitType.MISS)]
    assert "FetchKv" not in submitted(keeping)
    for name in ("r1", "r2"):
        keeping.release(name)
    keeping.ask("r3", ids(1, 200))
    assert submitted(keeping)[-1] == "FetchKv"


def test_under_the_limit_nothing_is_read() -> None:
    keeping = Keeping(disk_tokens=2000, disk=left(ids(1, 150)))
    keeping.engine.catch_up()
    keeping.actor.receive(m.PressureMeasured(PressureLevel.LIMIT))
    keeping.ask("r1", ids(1, 200))
    assert answers(keeping) == [("r1", 0, HitType.MISS)]
    assert "FetchKv" not in submitted(keeping)


def test_what_could_not_be_written_is_written_when_it_is_kept_again() -> None:
    keeping = Keeping(disk_tokens=2000)
    keeping.keep(ids(1, 100))
    pieces = left(ids(1, 100))
    keeping.reply(c.Stored(SequenceId(99), (), (), (pieces[1].handle,)), 0.0)
    shown = keeping.actor.snapshot()
    assert (shown.entries, shown.stored_bytes, shown.disk_entries) == (1, 1000, 0)
    keeping.engine.catch_up()
    keeping.engine.take()
    keeping.lease("r1", ids(1, 101))
    keeping.release("r1", ids(1, 100))
    (stored,) = [command for command in keeping.engine.take() if isinstance(command, c.StoreKv)]
    assert list(stored.pieces) == pieces
    assert keeping.actor.snapshot().disk_bytes == 1000


def test_a_damaged_file_is_forgotten_and_what_else_there_is_serves() -> None:
    keeping = Keeping(disk_tokens=2000, disk=left((*ids(1, 128), 5), ids(1, 200)))
    keeping.engine.catch_up()
    damaged = left(ids(1, 200))[2]
    assert keeping.engine.fake.disk
    del keeping.engine.fake.disk[damaged.handle]
    keeping.ask("r1", ids(1, 250))
    keeping.engine.catch_up()
    assert answers(keeping) == [("r1", 128, HitType.LCP)]
    assert keeping.actor.snapshot().disk_entries == 1
    assert damaged.handle not in keeping.engine.fake.disk
    keeping.engine.take()
    keeping.ask("r2", ids(1, 250))
    assert submitted(keeping) == ["LoadKv"]


def test_what_leads_nowhere_is_erased() -> None:
    keeping = Keeping(disk_tokens=2000, disk=left(ids(1, 150))[1:])
    keeping.engine.catch_up()
    assert keeping.engine.fake.disk == {}
    assert keeping.actor.snapshot().disk_bytes == 0


def test_beyond_its_bytes_the_disk_gives_up_what_was_used_longest_ago() -> None:
    keeping = Keeping(disk_tokens=250, disk=left(ids(1, 100), ids(2, 100)))
    keeping.engine.catch_up()
    keeping.keep(ids(3, 100))
    keeping.engine.catch_up()
    assert keeping.engine.fake.disk is not None
    assert {piece.token_ids[0] for piece in keeping.engine.fake.disk.values() if not piece.start} == {2, 3}
    assert keeping.actor.snapshot().disk_bytes == 2000


def test_what_left_memory_is_still_on_disk() -> None:
    keeping = Keeping(keep_tokens=150, disk_tokens=2000)
    keeping.keep(ids(1, 100))
    keeping.keep(ids(2, 100))
    assert keeping.actor.snapshot().entries == 1
    keeping.ask("r1", ids(1, 101))
    keeping.engine.catch_up()
    assert answers(keeping)[-1] == ("r1", 100, HitType.PREFIX)


def test_what_was_in_memory_at_the_fetch_and_is_dropped_before_its_answer_is_fetched_too() -> None:
    keeping = Keeping(room_tokens=4 * 256, disk_tokens=2000, disk=left((*ids(1, 128), *range(64))))
    keeping.keep((*ids(1, 64), 7))
    keeping.lease("r1", ids(9, 10))
    keeping.ask("r2", (*ids(1, 128), *range(64), 8))
    keeping.engine.take()
    keeping.actor.receive(m.KvGrew(RequestId("r1"), 2 * 256 + 1))
    keeping.engine.catch_up()
    keeping.release("r1")
    keeping.ask("r2", (*ids(1, 128), *range(64), 8))
    keeping.engine.catch_up()
    loads = [command for command in keeping.engine.take() if isinstance(command, c.LoadKv)]
    assert len(loads) == 1
    assert answers(keeping)[-1] == ("r2", 192, HitType.PREFIX)
    assert len(keeping.engine.fake.caches[keeping.sequences["r2"]]) == 192


def test_what_was_cleared_before_it_was_listed_is_gone_too() -> None:
    keeping = Keeping(disk_tokens=2000, disk=left(ids(1, 150)))
    told: list[bool] = []
    keeping.actor.receive(m.ClearCache(lambda: told.append(bool(keeping.engine.fake.disk))))
    keeping.engine.catch_up()
    assert told == [False]
    keeping.ask("r1", ids(1, 200))
    assert answers(keeping) == [("r1", 0, HitType.MISS)]


def test_what_was_cleared_while_it_was_fetched_is_gone_too() -> None:
    keeping = Keeping(disk_tokens=2000, disk=left(ids(1, 150)))
    keeping.engine.catch_up()
    keeping.ask("r1", ids(1, 200))
    keeping.actor.receive(m.ClearCache(lambda: None))
    keeping.engine.catch_up()
    assert answers(keeping) == [("r1", 0, HitType.MISS)]
    assert keeping.engine.fake.stored == {}
    assert keeping.actor.snapshot().entries == 0


def test_what_cannot_be_cut_comes_back_with_all_its_states() -> None:
    states = cut(root_of(""), ids(1, 200), (100, 200))
    keeping = Keeping(disk_tokens=2000, disk=states, trimmable=False, strategy=CacheStrategy.MEMORY_AWARE)
    keeping.engine.catch_up()
    assert keeping.actor.snapshot().disk_entries == 2
    keeping.ask("r1", ids(1, 150))
    keeping.engine.catch_up()
    assert answers(keeping) == [("r1", 100, HitType.PREFIX)]
