"""CacheManager: who gets room, and what happens when those who run come to need more."""

import pytest

from actors import messages as m
from runtime.engine import commands as c
from runtime.types import PressureLevel, RequestId, SequenceId
from tests.actors.keeping import Keeping

STEP = 256
"""Every sequence takes a multiple of so many tokens."""


def ids(first: int, length: int) -> tuple[int, ...]:
    """Ids that no other `first` gives."""
    return (first, *range(100, 99 + length))


def names(keeping: Keeping) -> list[tuple[str, str]]:
    """What the Scheduler was told since last asked, and of whom."""
    return [(type(word).__name__, getattr(word, "request_id", "")) for word in keeping.scheduler.take()]


def kept_tokens(keeping: Keeping) -> int:
    return keeping.actor.snapshot().stored_bytes // 10


def test_what_does_not_fit_beside_others_is_refused_until_somebody_has_left() -> None:
    keeping = Keeping(room_tokens=2 * STEP)
    keeping.ask("r1", ids(1, 10))
    keeping.ask("r2", ids(2, 10))
    keeping.ask("r3", ids(3, 10))
    assert names(keeping) == [("KvLeased", "r1"), ("KvLeased", "r2"), ("KvRefused", "r3")]
    keeping.release("r1")
    keeping.ask("r3", ids(3, 10))
    assert names(keeping) == [("KvLeased", "r3")]


def test_a_lease_counts_the_token_that_comes_next() -> None:
    keeping = Keeping()
    keeping.lease("r1", ids(1, STEP - 1))
    assert keeping.actor.snapshot().leased_bytes == STEP * 10
    keeping.release("r1")
    keeping.lease("r2", ids(2, STEP))
    assert keeping.actor.snapshot().leased_bytes == 2 * STEP * 10


def test_short_rows_cost_as_much_as_the_padding_beside_a_long_one() -> None:
    keeping = Keeping()
    keeping.lease("long", ids(1, 3 * STEP - 1))
    keeping.lease("short", ids(2, 10))
    assert keeping.actor.snapshot().leased_bytes == (3 + 2) * STEP * 10


def test_a_sequence_alone_is_never_refused_and_never_told_to_go() -> None:
    keeping = Keeping(room_tokens=STEP)
    keeping.lease("r1", ids(1, 3 * STEP))
    keeping.actor.receive(m.KvGrew(RequestId("r1"), 9 * STEP))
    assert names(keeping) == []


def test_whoever_grows_takes_the_room_of_kept_prefixes_first() -> None:
    keeping = Keeping(room_tokens=5 * STEP)
    for first in (1, 2):
        keeping.keep(ids(first, STEP))
    keeping.lease("r1", ids(3, 10))
    keeping.lease("r2", ids(4, 10))
    for tokens, left in ((STEP + 1, STEP), (2 * STEP + 1, 0)):
        keeping.actor.receive(m.KvGrew(RequestId("r1"), tokens))
        assert kept_tokens(keeping) == left
        assert [type(each) for each in keeping.engine.take()] == [c.DropKv]
    assert names(keeping) == []


def test_those_who_have_outgrown_the_room_are_told_of_once_and_again_if_it_was_not_enough() -> None:
    keeping = Keeping(room_tokens=6 * STEP)
    for first, name in enumerate(("r1", "r2", "r3")):
        keeping.lease(name, ids(first, STEP))
    keeping.actor.receive(m.KvGrew(RequestId("r1"), 4 * STEP))
    assert names(keeping) == [("KvOverdrawn", "")]
    keeping.actor.receive(m.KvGrew(RequestId("r1"), 5 * STEP))
    assert names(keeping) == []
    keeping.release("r3")
    assert names(keeping) == [("KvOverdrawn", "")]
    keeping.release("r2")
    assert names(keeping) == []


def test_who_was_to_come_in_waits_when_those_who_run_outgrow_the_room() -> None:
    """Its lease waits for what it is to begin with, and the Scheduler does not have it yet."""
    keeping = Keeping(room_tokens=3 * STEP, keep_tokens=400)
    keeping.lease("r0", ids(1, 100))
    keeping.lease("r1", ids(9, 10))
    keeping.release("r0", ids(1, 99))
    keeping.ask("r2", ids(1, 150))
    assert names(keeping) == []
    keeping.actor.receive(m.KvGrew(RequestId("r1"), 2 * STEP + 1))
    assert names(keeping) == [("KvRefused", "r2")]
    keeping.engine.catch_up()
    assert names(keeping) == []
    assert keeping.actor.snapshot().leases == 1


def test_a_lease_given_back_before_it_was_answered_is_never_answered() -> None:
    keeping = Keeping()
    keeping.lease("r0", ids(1, 100))
    keeping.release("r0", ids(1, 99))
    keeping.ask("r1", ids(1, 150))
    keeping.release("r1")
    keeping.engine.catch_up()
    assert names(keeping) == []
    assert keeping.actor.snapshot().leases == 0


def test_the_engine_forgets_whoever_leaves_even_if_nobody_knew_them() -> None:
    keeping = Keeping()
    keeping.actor.receive(m.ReleaseKv(RequestId("unknown"), SequenceId(7), (1, 2)))
    assert keeping.engine.take() == [c.Forget((SequenceId(7),))]


def test_growth_of_one_who_has_left_changes_nothing() -> None:
    keeping = Keeping()
    keeping.actor.receive(m.KvGrew(RequestId("r1"), 9 * STEP))
    assert keeping.actor.snapshot().leased_bytes == 0


def test_without_a_prefix_cache_nothing_is_stored_and_nothing_looked_up() -> None:
    keeping = Keeping(keep_tokens=0)
    answer = keeping.lease("r1", ids(1, 200))
    assert answer.checkpoints == ()
    keeping.release("r1", ids(1, 199))
    keeping.lease("r2", ids(1, 200))
    assert [type(each) for each in keeping.engine.take()] == [c.Forget]
    assert not any(keeping.actor.snapshot().hits.values())


def test_a_prompt_to_be_scored_is_served_by_nothing_until_its_scores_were_told() -> None:
    keeping = Keeping()
    keeping.keep(ids(1, 100))
    request = keeping.client.request("r1", ids(1, 100), score_prompt=0)
    served = []
    for number in (7, 8):
        keeping.actor.receive(m.LeaseKv(request, SequenceId(number), request.prompt_ids))
        (answer,) = keeping.scheduler.take()
        assert isinstance(answer, m.KvLeased)
        keeping.actor.receive(m.ReleaseKv(request.request_id, SequenceId(number), ()))
        served.append((answer.cached_tokens, sum(keeping.actor.snapshot().hits.values())))
        request.sink.prompt_scored(m.PromptScored(request.request_id, ()))
    assert served == [(0, 0), (99, 1)]


def test_under_pressure_the_prefixes_give_way_and_their_bytes_go_back_to_the_system() -> None:
    keeping = Keeping(keep_tokens=1000)
    for first in range(4):
        keeping.keep(ids(first, 250))
    assert kept_tokens(keeping) == 1000
    keeping.actor.receive(m.PressureMeasured(PressureLevel.WARN))
    assert [type(each) for each in keeping.engine.take()] == [c.DropKv, c.GiveBack]
    assert kept_tokens(keeping) == 500
    keeping.actor.receive(m.PressureMeasured(PressureLevel.LIMIT))
    assert [type(each) for each in keeping.engine.take()] == [c.DropKv, c.GiveBack]
    assert kept_tokens(keeping) == 0


@pytest.mark.parametrize(("level", "tokens"), [(PressureLevel.LIMIT, 0), (PressureLevel.WARN, 500)])
def test_while_pressure_lasts_no_more_is_kept_than_it_allows(level: PressureLevel, tokens: int) -> None:
    keeping = Keeping(keep_tokens=1000)
    keeping.actor.receive(m.PressureMeasured(level))
    for first in range(4):
        keeping.keep(ids(first, 250))
    assert kept_tokens(keeping) == tokens


def test_when_the_pressure_ends_the_cache_fills_again() -> None:
    keeping = Keeping(keep_tokens=1000)
    for level in (PressureLevel.LIMIT, PressureLevel.NORMAL):
        keeping.actor.receive(m.PressureMeasured(level))
    for first in range(4):
        keeping.keep(ids(first, 250))
    assert kept_tokens(keeping) == 1000
