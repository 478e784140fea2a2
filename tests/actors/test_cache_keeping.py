"""CacheManager: what is kept of those who leave and of those under way, and whom it serves."""

import pytest

from actors import messages as m
from actors.policies.prefix_cache import LEGACY_ENTRIES
from runtime.engine import commands as c
from runtime.types import CacheStrategy, HitType, KvCheckpoint, KvPiece, RequestId, SequenceId
from tests.actors.keeping import END, Keeping


def ids(first: int, length: int) -> tuple[int, ...]:
    """Ids that no other `first` gives."""
    return (first, *range(100, 99 + length))


def hit(answer: m.KvLeased) -> tuple[int, HitType]:
    return answer.cached_tokens, answer.hit_type


def only(commands: list[c.Command], kind: type[c.Command]) -> list[c.Command]:
    return [command for command in commands if isinstance(command, kind)]


def stored_pieces(keeping: Keeping) -> list[KvPiece]:
    """What the engine was asked to store since last asked."""
    return [piece for command in keeping.engine.take() if isinstance(command, c.StoreKv) for piece in command.pieces]


def test_who_leaves_is_stored_before_the_engine_forgets_it() -> None:
    keeping = Keeping()
    keeping.lease("r1", ids(1, 100))
    keeping.release("r1", ids(1, 99))
    store, forget = keeping.engine.take()
    assert isinstance(store, c.StoreKv)
    assert [piece.stop for piece in store.pieces] == [64, 99]
    assert forget == c.Forget((SequenceId(1),))


def test_who_failed_leaves_nothing() -> None:
    keeping = Keeping()
    keeping.lease("r1", ids(1, 100))
    keeping.release("r1", ())
    assert keeping.engine.take() == [c.Forget((SequenceId(1),))]


def test_who_ended_serves_the_next_that_begins_like_it() -> None:
    keeping = Keeping()
    keeping.keep(ids(1, 100))
    hits = [
        hit(keeping.lease("longer", ids(1, 150))),
        hit(keeping.lease("as long", ids(1, 100))),
        hit(keeping.lease("shorter", ids(1, 80))),
        hit(keeping.lease("parting", (*ids(1, 50), 7, 8))),
        hit(keeping.lease("other", ids(2, 50))),
    ]
    assert hits == [
        (100, HitType.PREFIX),
        (99, HitType.EXACT),
        (79, HitType.SUPERSEQUENCE),
        (50, HitType.LCP),
        (0, HitType.MISS),
    ]
    for name in ("longer", "as long", "shorter", "parting", "other"):
        keeping.release(name)
    assert set(keeping.actor.snapshot().hits.values()) == {1}


def test_what_serves_is_loaded_before_it_can_be_dropped() -> None:
    keeping = Keeping(room_tokens=512, keep_tokens=256)
    keeping.keep(ids(1, 250))
    keeping.lease("r1", ids(1, 300))  # takes all the room there is
    load, drop = keeping.engine.take()
    assert isinstance(load, c.LoadKv)
    assert isinstance(drop, c.DropKv)
    assert (load.sequence_id, load.tokens) == (keeping.sequences["r1"], 250)
    assert load.handles == drop.handles


def test_what_one_tenant_left_serves_no_other() -> None:
    keeping = Keeping()
    keeping.keep(ids(1, 100), salt="ours")
    assert hit(keeping.lease("r1", ids(1, 100), salt="theirs")) == (0, HitType.MISS)
    assert hit(keeping.lease("r2", ids(1, 100))) == (0, HitType.MISS)
    assert hit(keeping.lease("r3", ids(1, 100), salt="ours")) == (99, HitType.EXACT)


def test_the_next_request_finds_what_the_engine_is_only_about_to_store() -> None:
    keeping = Keeping()
    keeping.lease("r1", ids(1, 100))
    keeping.release("r1", ids(1, 100))
    keeping.ask("r2", ids(1, 150))
    assert keeping.scheduler.heard[1:] == []
    keeping.engine.catch_up()
    answer = keeping.scheduler.heard[-1]
    assert isinstance(answer, m.KvLeased)
    assert (answer.request_id, *hit(answer)) == ("r2", 100, HitType.PREFIX)


def test_what_the_engine_could_not_store_is_a_miss_and_nothing_leads_to_it() -> None:
    keeping = Keeping()
    keeping.lease("r1", ids(1, 100))
    keeping.scheduler.take()
    keeping.release("r1", ids(1, 100))
    keeping.engine.fake.caches.clear()  # the engine had forgotten it by itself
    keeping.ask("r2", ids(1, 150))
    keeping.engine.catch_up()
    (answer,) = keeping.scheduler.take()
    assert isinstance(answer, m.KvLeased)
    assert hit(answer) == (0, HitType.MISS)
    shown = keeping.actor.snapshot()
    assert (shown.entries, shown.pieces, shown.stored_bytes) == (0, 0, 0)


def test_what_the_engine_stored_in_part_leaves_nothing_behind_there() -> None:
    keeping = Keeping()
    keeping.lease("r1", ids(1, 150))
    keeping.release("r1", ids(1, 150))
    keeping.compute("r1", ids(1, 100))
    keeping.engine.catch_up()
    assert keeping.engine.fake.stored == {}
    assert keeping.actor.snapshot().pieces == 0


def test_what_two_share_is_stored_once() -> None:
    keeping = Keeping()
    keeping.keep((*ids(1, 128), 7))
    keeping.lease("r1", (*ids(1, 128), 8))
    keeping.engine.take()
    keeping.release("r1", (*ids(1, 128), 8))
    assert [piece.token_ids for piece in stored_pieces(keeping)] == [(8,)]
    assert keeping.actor.snapshot().stored_bytes == 130 * 10


def test_whole_sequences_share_nothing_and_a_longer_one_takes_the_place_of_its_beginning() -> None:
    keeping = Keeping(strategy=CacheStrategy.MEMORY_AWARE)
    keeping.keep((*ids(1, 128), 7))
    keeping.keep((*ids(1, 128), 8))
    assert keeping.actor.snapshot().stored_bytes == 2 * 129 * 10
    keeping.keep((*ids(1, 128), 8, 9))
    assert keeping.actor.snapshot().stored_bytes == (129 + 130) * 10
    assert len(keeping.engine.fake.stored) == 2


def test_the_least_recently_used_goes_first() -> None:
    keeping = Keeping(keep_tokens=300)
    for first in (1, 2, 3):
        keeping.keep(ids(first, 100))
    keeping.lease("hit", ids(1, 101))
    keeping.keep(ids(4, 100))
    kept = [first for first in (1, 2, 3, 4) if keeping.lease(f"r{first}", ids(first, 101)).cached_tokens]
    assert kept == [1, 3, 4]
    assert keeping.actor.snapshot().evictions == 1


def test_what_is_larger_than_the_cache_is_not_stored_and_drives_nobody_out() -> None:
    keeping = Keeping(keep_tokens=300)
    keeping.keep(ids(1, 100))
    keeping.keep(ids(2, 301))
    assert hit(keeping.lease("r1", ids(1, 101))) == (100, HitType.PREFIX)


def test_legacy_keeps_a_number_of_sequences_however_small() -> None:
    keeping = Keeping(strategy=CacheStrategy.LEGACY, keep_tokens=100_000, room_tokens=200_000)
    for first in range(LEGACY_ENTRIES + 3):
        keeping.keep((50 + first, 10, 11))
    assert keeping.actor.snapshot().entries == LEGACY_ENTRIES
    assert len(keeping.engine.fake.stored) == LEGACY_ENTRIES
    assert hit(keeping.lease("gone", (50, 10, 11, 12))) == (0, HitType.MISS)
    assert hit(keeping.lease("kept", (53, 10, 11, 12))) == (3, HitType.PREFIX)


# --- on the way ---


def test_who_reaches_a_checkpoint_is_found_by_others_that_begin_the_same() -> None:
    keeping = Keeping()
    history = ids(1, 200)
    first = keeping.lease("r1", history)
    keeping.lease("r2", (*history, 7))
    keeping.lease("theirs", history, salt="theirs")
    (checkpoint,) = first.checkpoints
    assert checkpoint.tokens == 199
    keeping.reach("r1", history, checkpoint)
    keeping.engine.catch_up()
    handles = tuple(piece.handle for piece in checkpoint.pieces)
    assert keeping.prefill.take() == [
        m.PrefixFound(RequestId("r2"), 199, HitType.PREFIX, handles),
        m.CheckpointHandled(keeping.sequences["r1"]),
    ]


@pytest.mark.parametrize("what", ["nothing was stored", "it has left", "all was cleared", "nothing was to be stored"])
def test_whatever_came_of_a_checkpoint_its_answer_is_passed_on(what: str) -> None:
    keeping = Keeping()
    history = ids(1, 200)
    (checkpoint,) = keeping.lease("r1", history).checkpoints
    keeping.reach("r1", history, checkpoint if what != "nothing was to be stored" else KvCheckpoint(199, ()))
    if what == "nothing was stored":
        keeping.compute("r1", ())
    elif what == "it has left":
        keeping.release("r1")
    elif what == "all was cleared":
        keeping.actor.receive(m.ClearCache(lambda: None))
    keeping.engine.catch_up()
    assert keeping.prefill.take() == [m.CheckpointHandled(keeping.sequences["r1"])]


@pytest.mark.parametrize("what", ["nothing was stored", "nothing was to be stored"])
def test_who_has_come_to_the_end_of_its_prompt_is_told_of_nothing_any_more(what: str) -> None:
    keeping = Keeping()
    history = ids(1, 200)
    (checkpoint,) = keeping.lease("r1", history).checkpoints
    (other,) = keeping.lease("r2", (*history, 7)).checkpoints
    keeping.reach("r1", history, checkpoint if what == "nothing was stored" else KvCheckpoint(199, ()))
    keeping.compute("r1", ())
    keeping.engine.catch_up()
    keeping.reach("r2", (*history, 7), other)
    keeping.engine.catch_up()
    assert keeping.found() == []


def test_who_was_started_anew_comes_to_no_checkpoint_before_that() -> None:
    keeping = Keeping()
    history = ids(1, 200)
    (checkpoint,) = keeping.lease("r1", history).checkpoints
    keeping.lease("r2", history)
    keeping.reach("r1", history, checkpoint)
    keeping.engine.catch_up()
    assert [word.request_id for word in keeping.found()] == ["r2"]
    keeping.actor.receive(m.PrefixTaken(RequestId("r2"), HitType.EXACT))
    assert not keeping.actor._leases[RequestId("r2")].stops


def test_the_tally_says_once_what_happened_in_the_end_and_never_goes_back() -> None:
    keeping = Keeping()
    keeping.lease("r1", ids(1, 200))
    keeping.actor.receive(m.PrefixTaken(RequestId("r1"), HitType.PREFIX))
    assert not any(keeping.actor.snapshot().hits.values())
    keeping.release("r1")
    hits = keeping.actor.snapshot().hits
    assert {hit_type: number for hit_type, number in hits.items() if number} == {HitType.PREFIX: 1}
    keeping.actor.receive(m.PrefixTaken(RequestId("r1"), HitType.PREFIX))
    keeping.ask("r1", ids(1, 201), again=True)
    keeping.release("r1")
    assert keeping.actor.snapshot().hits == hits


def test_who_never_came_on_stage_counts_for_nothing() -> None:
    keeping = Keeping()
    keeping.lease("r1", ids(1, 100))
    keeping.release("r1", ids(1, 99))
    keeping.ask("r2", ids(1, 150))  # it waits for what the engine is about to store
    keeping.release("r2")
    assert sum(keeping.actor.snapshot().hits.values()) == 1


def test_nobody_is_told_twice_of_what_is_hardly_more() -> None:
    keeping = Keeping()
    histories = {"r1": (*ids(1, 200), 7), "r2": (*ids(1, 220), 7), "r3": ids(1, 300)}
    leases = {name: keeping.lease(name, history) for name, history in histories.items()}
    for name in ("r1", "r2"):
        (checkpoint,) = leases[name].checkpoints
        keeping.reach(name, histories[name], checkpoint)
        keeping.engine.catch_up()
    assert [(word.request_id, word.tokens) for word in keeping.found()] == [("r2", 200), ("r3", 200)]


@pytest.mark.parametrize("held", [(), ids(1, 199)], ids=["failed", "left"])
def test_a_checkpoint_of_somebody_who_has_left_leaves_nothing_unknown_in_the_engine(held: tuple[int, ...]) -> None:
    keeping = Keeping()
    history = ids(1, 200)
    (checkpoint,) = keeping.lease("r1", history).checkpoints
    keeping.reach("r1", history, checkpoint)
    keeping.release("r1", held)
    keeping.engine.catch_up()
    assert keeping.actor.snapshot().pieces == len(keeping.engine.fake.stored) == (len(checkpoint.pieces) if held else 0)


def test_what_was_dropped_while_the_engine_said_that_it_has_it_is_not_found() -> None:
    """Two with one prompt: what the first one left is dropped, behind the checkpoint of the second in the engine's
    line, and ahead of the answer to it in the mail."""
    keeping = Keeping(room_tokens=2 * 256)
    history = ids(1, 200)
    keeping.lease("r1", history)
    (checkpoint,) = keeping.lease("r2", history).checkpoints
    keeping.release("r1", history[:199])
    keeping.reach("r2", history, checkpoint)
    keeping.engine.work()
    keeping.engine.work()
    keeping.engine.work()
    keeping.lease("r3", ids(3, 10))
    keeping.engine.catch_up()
    keeping.release("r3")
    assert keeping.engine.fake.stored == {}
    assert hit(keeping.lease("r4", (*history, 7))) == (0, HitType.MISS)


def test_cleared_means_that_the_engine_has_nothing_any_more() -> None:
    keeping = Keeping(disk_tokens=2000)
    keeping.keep(ids(1, 100))
    told: list[dict[str, int]] = []
    fake = keeping.engine.fake
    keeping.actor.receive(m.ClearCache(lambda: told.append({"memory": len(fake.stored), "disk": len(fake.disk or {})})))
    assert told == []
    keeping.engine.catch_up()
    assert told == [{"memory": 0, "disk": 0}]
    assert hit(keeping.lease("r1", ids(1, 101))) == (0, HitType.MISS)


def test_cleared_is_told_when_it_is_known_what_could_not_be_deleted_and_memory_was_given_back() -> None:
    keeping = Keeping(disk_tokens=2000)
    keeping.keep(ids(1, 100))
    keeping.keep(ids(2, 100))
    stuck = [piece.handle for piece in (keeping.engine.fake.disk or {}).values() if piece.token_ids[0] == 1]
    keeping.engine.fake.stuck.update(stuck)
    told: list[int] = []
    keeping.actor.receive(m.ClearCache(lambda: told.append(keeping.actor.snapshot().disk_bytes)))
    shown = keeping.actor.snapshot()
    assert (shown.entries, shown.disk_entries, told) == (0, 0, [])
    keeping.engine.catch_up()
    assert told == [640]
    assert [type(each) for each in keeping.engine.take()][:2] == [c.ClearKv, c.GiveBack]


def test_what_was_stored_before_all_was_cleared_and_told_of_after_is_not_kept() -> None:
    keeping = Keeping(disk_tokens=2000)
    history = ids(1, 200)
    (checkpoint,) = keeping.lease("r1", history).checkpoints
    keeping.lease("r2", history)
    keeping.reach("r1", history, checkpoint)
    keeping.engine.work()
    keeping.actor.receive(m.ClearCache(lambda: None))
    keeping.engine.catch_up()
    assert keeping.found() == []
    shown = keeping.actor.snapshot()
    assert (shown.entries, shown.disk_entries, keeping.engine.fake.stored) == (0, 0, {})
    assert hit(keeping.lease("r3", history)) == (0, HitType.MISS)


def test_what_is_kept_while_all_is_cleared_stays() -> None:
    keeping = Keeping(disk_tokens=2000)
    keeping.lease("r1", ids(1, 200))
    keeping.actor.receive(m.ClearCache(lambda: None))
    keeping.release("r1", ids(1, 199))
    keeping.engine.catch_up()
    assert len(keeping.engine.fake.stored) == len(keeping.engine.fake.disk or {}) == 4
    assert hit(keeping.lease("r2", ids(1, 200))) == (199, HitType.PREFIX)


def test_an_engine_that_lacks_what_it_was_said_to_have_ends_this_life() -> None:
    keeping = Keeping()
    with pytest.raises(RuntimeError, match="sequence 3 was to begin with"):
        keeping.reply(c.KvLoaded(SequenceId(3), 0), 0.0)


# --- what cannot be cut ---

SYSTEM = (*ids(1, 99), END)
CHAT = (*SYSTEM, *ids(5, 79), END, *ids(6, 20))


def test_what_cannot_be_cut_is_kept_at_the_ends_of_messages_and_of_the_prompt() -> None:
    keeping = Keeping(trimmable=False, strategy=CacheStrategy.MEMORY_AWARE)
    answer = keeping.lease("r1", CHAT)
    assert [each.tokens for each in answer.checkpoints] == [100, 180, 199]
    assert [[piece.stop for piece in each.pieces] for each in answer.checkpoints] == [[100], [180], [199]]


def test_what_cannot_be_cut_serves_up_to_an_end_and_never_in_between() -> None:
    keeping = Keeping(trimmable=False, strategy=CacheStrategy.MEMORY_AWARE)
    for checkpoint in keeping.lease("r1", CHAT).checkpoints:
        keeping.reach("r1", CHAT, checkpoint)
        keeping.engine.catch_up()
    keeping.engine.take()
    keeping.release("r1", (*CHAT, 500, 501))
    assert [(piece.start, piece.stop) for piece in stored_pieces(keeping)] == [(199, 202)]
    keeping.engine.catch_up()
    hits = [
        hit(keeping.lease("next turn", (*CHAT, 500, 501, 502))),
        hit(keeping.lease("again", CHAT)),
        hit(keeping.lease("edited", (*CHAT[:185], 700, 701))),
        hit(keeping.lease("other", (*SYSTEM, 700, 701))),
        hit(keeping.lease("cut off", CHAT[:99])),
    ]
    assert [tokens for tokens, _ in hits] == [202, 199, 180, 100, 0]


def test_somebody_who_was_told_of_an_own_checkpoint_would_begin_anew_in_vain() -> None:
    keeping = Keeping(trimmable=False, strategy=CacheStrategy.MEMORY_AWARE)
    answer = keeping.lease("r1", CHAT)
    keeping.reach("r1", CHAT, answer.checkpoints[0])
    keeping.engine.catch_up()
    assert keeping.found() == []


def test_a_state_that_the_engine_is_already_past_is_missing_and_its_checkpoints_stay() -> None:
    keeping = Keeping(trimmable=False, strategy=CacheStrategy.MEMORY_AWARE)
    (first, *_) = keeping.lease("r1", CHAT).checkpoints
    keeping.reach("r1", CHAT, first)
    keeping.engine.catch_up()
    keeping.release("r1", CHAT[:120])
    keeping.compute("r1", CHAT[:140])  # a turn that was under way
    keeping.engine.catch_up()
    assert [piece.stop for piece in keeping.engine.fake.stored.values()] == [100]
    assert hit(keeping.lease("r2", CHAT))[0] == 100


def test_of_a_request_that_leaves_nothing_nothing_is_kept_on_the_way_either() -> None:
    keeping = Keeping()
    keeping.ask("r1", ids(0, 200), leaves_kv=False)
    (answer,) = keeping.scheduler.take()
    assert isinstance(answer, m.KvLeased)
    assert answer.checkpoints == ()
