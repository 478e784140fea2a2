"""Scheduler: the line, the stage and the turns."""

from actors import messages as m
from runtime.types import CancelCause, HitType, KvCheckpoint, RequestId
from tests.actors.stage import FIRST_ID, USAGE, Stage

R1 = RequestId("r1")


def test_a_request_is_leased_staged_and_granted_a_prefill_turn() -> None:
    stage = Stage()
    request = stage.client.request("r1")
    stage.actor.receive(m.Enqueue(1, request, ()))
    assert stage.cache.take() == [m.LeaseKv(request, FIRST_ID, (1, 2, 3))]
    checkpoints = (KvCheckpoint(2, ()),)
    stage.actor.receive(m.KvLeased(R1, 1, HitType.PREFIX, checkpoints))
    sequence = m.Sequence(request, FIRST_ID, (1, 2, 3), 1, HitType.PREFIX, checkpoints)
    assert stage.prefill.take() == [m.StartPrefill(sequence), m.GrantPrefill(64)]
    assert stage.admitter.take() == [m.RequestStaged(R1)]


def test_delivered_output_is_part_of_the_history() -> None:
    stage = Stage()
    request = stage.client.request("r1")
    stage.actor.receive(m.Enqueue(1, request, (11, 12)))
    assert stage.cache.take() == [m.LeaseKv(request, FIRST_ID, (1, 2, 3, 11, 12))]


def test_a_request_meant_for_an_earlier_life_is_ignored() -> None:
    stage = Stage()
    stage.actor.receive(m.Enqueue(0, stage.client.request("r1"), ()))
    assert stage.cache.heard == []


def test_one_request_is_leased_at_a_time_in_order_of_arrival() -> None:
    stage = Stage(max_concurrency=2)
    stage.enqueue("r1", "r2", "r3")
    for number, name in enumerate(("r1", "r2")):
        (wish,) = stage.cache.take()
        assert isinstance(wish, m.LeaseKv)
        assert (wish.request.request_id, wish.sequence_id) == (name, FIRST_ID + number)
        stage.lease(name)
    assert stage.cache.take() == []
    stage.end("r1")
    release, wish = stage.cache.take()
    assert release == m.ReleaseKv(R1, FIRST_ID, ())
    assert isinstance(wish, m.LeaseKv)
    assert wish.request.request_id == "r3"


def test_a_refused_lease_waits_at_the_head_until_somebody_releases() -> None:
    stage = Stage()
    stage.stage("r1")
    stage.cache.take()
    stage.enqueue("r2", "r3")
    stage.cache.take()
    stage.actor.receive(m.KvRefused(RequestId("r2")))
    assert stage.actor.snapshot().waiting == ("r2", "r3")
    stage.enqueue("r4")
    assert stage.cache.take() == []
    stage.end("r1")
    release, wish = stage.cache.take()
    assert isinstance(release, m.ReleaseKv)
    assert isinstance(wish, m.LeaseKv)
    assert wish.request.request_id == "r2"


def test_who_is_refused_with_nobody_on_stage_asks_again_at_once() -> None:
    """What those who have just left held is free by the time the question gets there."""
    stage = Stage()
    stage.stage("r1")
    stage.enqueue("r2")
    stage.end("r1")
    stage.cache.take()
    stage.actor.receive(m.KvRefused(RequestId("r2")))
    (wish,) = stage.cache.take()
    assert isinstance(wish, m.LeaseKv)
    assert wish.request.request_id == "r2"


def test_who_is_refused_when_somebody_has_left_meanwhile_asks_again_at_once() -> None:
    """CacheManager did not know of that when it said no."""
    stage = Stage(max_concurrency=4)
    for name in ("r1", "r2"):
        stage.stage(name)
    stage.enqueue("r3")
    stage.end("r1")
    stage.cache.take()
    for asked in ([m.LeaseKv], []):
        stage.actor.receive(m.KvRefused(RequestId("r3")))
        assert [type(each) for each in stage.cache.take()] == asked


def test_two_turns_are_under_way_and_the_kinds_alternate() -> None:
    stage = Stage()
    stage.stage("r1")
    stage.actor.receive(m.SequencePrefilled(R1))
    stage.actor.receive(m.PrefillTurnEnded(3, 0.1))
    assert stage.decode.take() == [m.GrantDecode(1), m.GrantDecode(1)]
    stage.prefill.take()
    stage.stage("r2")
    (started,) = stage.prefill.take()
    assert isinstance(started, m.StartPrefill)
    stage.actor.receive(m.DecodeTurnEnded(1, 0.1))
    assert [type(each) for each in stage.prefill.take()] == [m.GrantPrefill]
    assert stage.actor.snapshot().turns_under_way == ("decode", "prefill")
    stage.actor.receive(m.DecodeTurnEnded(1, 0.1))
    assert stage.decode.take() == [m.GrantDecode(1)]
    stage.actor.receive(m.PrefillTurnEnded(16, 0.1))
    assert [type(each) for each in stage.prefill.take()] == [m.GrantPrefill]


def test_beside_running_streams_prefill_turns_are_as_large_as_their_pace_allows() -> None:
    stage = Stage()
    stage.stage("r1")
    stage.actor.receive(m.SequencePrefilled(R1))
    stage.actor.receive(m.PrefillTurnEnded(3, 0.1))
    for _ in range(3):
        stage.actor.receive(m.DecodeTurnEnded(1, 0.01))
    stage.prefill.take()
    stage.stage("r2")
    budgets = []
    for _ in range(6):
        stage.actor.receive(m.DecodeTurnEnded(1, 0.01))
        budgets += [each.budget_tokens for each in stage.prefill.take() if isinstance(each, m.GrantPrefill)]
        stage.actor.receive(m.PrefillTurnEnded(budgets[-1], 0.001))
    assert budgets[0] == 16  # the first guess
    assert budgets == sorted(budgets)
    assert budgets[-1] == 64  # the largest turn there may be


def test_with_nobody_on_stage_no_turn_is_granted() -> None:
    stage = Stage()
    stage.stage("r1")
    stage.actor.receive(m.SequencePrefilled(R1))
    stage.end("r1")
    stage.prefill.take()
    stage.decode.take()
    stage.actor.receive(m.PrefillTurnEnded(0, 0.0))
    stage.actor.receive(m.DecodeTurnEnded(0, 0.0))
    assert stage.prefill.heard == []
    assert stage.decode.heard == []
    assert stage.actor.snapshot().turns_under_way == ()


def test_a_waiting_request_that_is_cancelled_ends_here() -> None:
    stage = Stage(max_concurrency=1)
    stage.stage("r1")
    stage.enqueue("r2")
    stage.cancel("r2")
    (word,) = stage.client.last_words()
    assert word == m.Cancelled(RequestId("r2"), CancelCause.CLIENT_LEFT, m.Usage(3, 0, 0))
    assert m.RequestClosed(RequestId("r2"), m.Usage(3, 0, 0)) in stage.admitter.heard
    assert stage.actor.snapshot().waiting == ()


def test_a_request_cancelled_while_its_lease_is_considered_gives_the_lease_back() -> None:
    stage = Stage()
    stage.enqueue("r1", "r2")
    stage.cache.take()
    stage.cancel("r1")
    assert len(stage.client.last_words()) == 1
    assert stage.cache.take()[0] == m.ReleaseKv(R1, FIRST_ID, ())
    stage.lease("r1")
    assert stage.cache.take() == []
    assert stage.actor.snapshot().prefilling == ()
    stage.lease("r2")
    assert stage.actor.snapshot().prefilling == ("r2",)


def test_a_refusal_for_a_cancelled_request_does_not_touch_the_next_one() -> None:
    stage = Stage()
    stage.enqueue("r1", "r2")
    stage.cancel("r1")
    stage.cache.take()
    stage.actor.receive(m.KvRefused(R1))
    assert stage.cache.take() == []
    stage.lease("r2")
    assert stage.actor.snapshot().prefilling == ("r2",)


def test_a_staged_request_that_is_cancelled_is_left_to_its_worker() -> None:
    stage = Stage()
    stage.stage("r1")
    stage.actor.receive(m.SequencePrefilled(R1))
    stage.prefill.take()
    stage.cancel("r1")
    assert stage.prefill.take() == [m.Cancel(R1, CancelCause.CLIENT_LEFT)]
    assert stage.client.last_words() == []


def test_suspects_come_on_stage_one_at_a_time_each_once_the_last_has_spoken() -> None:
    stage = Stage(max_concurrency=8)
    for name in ("r1", "r2", "r3"):
        stage.actor.receive(m.Enqueue(1, stage.client.request(name), (), suspect=name != "r3"))
    stage.lease("r1")
    assert stage.actor.snapshot().prefilling == ("r1",)
    assert stage.actor.snapshot().waiting == ("r2", "r3")
    stage.actor.receive(m.SequencePrefilled(R1))
    stage.actor.receive(m.SequenceSpoke(R1))
    stage.lease("r2")
    stage.lease("r3")
    assert stage.actor.snapshot().prefilling == ("r2", "r3")


def test_what_an_ended_sequence_held_is_left_to_the_cache() -> None:
    stage = Stage()
    stage.stage("r1")
    stage.cache.take()
    stage.admitter.take()
    stage.end("r1", held=(1, 2, 3, 4))
    stage.end("unknown")
    assert stage.cache.take() == [m.ReleaseKv(R1, FIRST_ID, (1, 2, 3, 4))]
    assert stage.admitter.take() == [m.RequestClosed(R1, USAGE)]


def test_sequence_ids_of_two_lives_never_meet() -> None:
    first, second = (Stage(epoch=epoch).stage("r1").sequence_id for epoch in (1, 2))
    assert second - first >= 1 << 32
