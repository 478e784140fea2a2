"""Scheduler: who goes back in line when the KV bytes run out, and how they come back."""

import pytest

from actors import messages as m
from runtime.types import CancelCause, RequestId, SequenceId, TokenOutput
from tests.actors.stage import FIRST_ID, Stage

R1, R2 = RequestId("r1"), RequestId("r2")


def two_on_stage() -> tuple[Stage, m.Sequence]:
    """Of whom the second came last."""
    stage = Stage(max_concurrency=4)
    stage.stage("r1", arrived_at=1.0)
    sequence = stage.stage("r2", arrived_at=2.0)
    for recorder in (stage.prefill, stage.cache, stage.admitter):
        recorder.take()
    return stage, sequence


def test_whoever_came_last_goes_whenever_it_came_on_stage() -> None:
    stage = Stage(max_concurrency=3)
    for name, arrived_at in (("r1", 1.0), ("r3", 3.0), ("r2", 2.0)):
        stage.stage(name, arrived_at=arrived_at)
    stage.actor.receive(m.KvOverdrawn())
    assert stage.preempts() == ["r3"]


def test_of_those_who_came_together_the_last_on_stage_goes() -> None:
    stage = Stage(max_concurrency=3)
    for name in ("r1", "r2", "r3"):
        stage.stage(name)
    stage.actor.receive(m.KvOverdrawn())
    assert stage.preempts() == ["r3"]


def test_one_goes_at_a_time_and_the_last_one_stays() -> None:
    stage = Stage(max_concurrency=3)
    sequences = {name: stage.stage(name, arrived_at=float(name[1])) for name in ("r1", "r2", "r3")}
    told = []
    for left in ("", "r3", "", "r2", ""):
        if left:
            stage.preempted(sequences[left])
        stage.actor.receive(m.KvOverdrawn())
        told.append(stage.preempts())
    assert told == [["r3"], ["r2"], [], [], []]


def test_the_line_stays_in_order_of_arrival_whoever_is_refused_while_somebody_goes_back() -> None:
    stage, sequence = two_on_stage()
    stage.enqueue("r3", arrived_at=3.0)
    stage.actor.receive(m.KvOverdrawn())
    stage.preempted(sequence)
    stage.actor.receive(m.KvRefused(RequestId("r3")))
    stage.enqueue("r4", arrived_at=4.0)
    assert stage.actor.snapshot().waiting == ("r2", "r3", "r4")


def test_who_left_while_another_was_on_the_way_out_may_have_made_room_for_it() -> None:
    stage = Stage(max_concurrency=4)
    for name in ("r0", "r1"):
        stage.stage(name)
    sequence = stage.stage("r2", arrived_at=2.0)
    stage.actor.receive(m.KvOverdrawn())
    stage.end("r1")
    stage.cache.take()
    stage.preempted(sequence, 11)
    assert [type(each) for each in stage.cache.take()] == [m.ReleaseKv, m.LeaseKv]


def test_who_was_preempted_is_first_in_line_with_all_it_has_and_waits_until_somebody_leaves() -> None:
    stage, sequence = two_on_stage()
    stage.enqueue("r3", arrived_at=3.0)
    stage.cache.take()
    stage.actor.receive(m.KvRefused(RequestId("r3")))
    stage.actor.receive(m.KvOverdrawn())
    stage.preempted(sequence, 11, 12, 13, unsent=2)
    assert stage.actor.snapshot().waiting == ("r2", "r3")
    assert stage.cache.take() == [m.ReleaseKv(R2, sequence.sequence_id, (1, 2, 3, 11, 12))]
    stage.enqueue("r4", arrived_at=4.0)
    assert stage.cache.take() == []
    stage.end("r1")
    release, wish = stage.cache.take()
    assert isinstance(release, m.ReleaseKv)
    assert isinstance(wish, m.LeaseKv)
    assert (wish.request.request_id, wish.history) == ("r2", (1, 2, 3, 11, 12, 13))
    assert wish.sequence_id not in (FIRST_ID, sequence.sequence_id)


def test_it_comes_back_with_its_unsent_tokens_and_what_the_cache_served_at_first() -> None:
    stage = Stage()
    stage.stage("r1")
    sequence = stage.stage("r2", cached_tokens=1)
    stage.actor.receive(m.KvOverdrawn())
    stage.preempted(sequence, 11, 12, unsent=1)
    stage.end("r1")
    stage.prefill.take()
    again = stage.start("r2", cached_tokens=4)
    assert again.history == (1, 2, 3, 11, 12)
    assert again.unsent == (TokenOutput(12),)
    assert (again.cached_tokens, again.served_tokens) == (4, 1)


def test_with_nobody_left_on_stage_it_is_leased_again_at_once() -> None:
    stage, sequence = two_on_stage()
    stage.actor.receive(m.KvOverdrawn())
    stage.end("r1")
    stage.cache.take()
    stage.preempted(sequence, 11)
    assert [type(each) for each in stage.cache.take()] == [m.ReleaseKv, m.LeaseKv]


def test_a_cancel_that_crosses_the_way_back_ends_it_in_line_with_one_last_word() -> None:
    stage, sequence = two_on_stage()
    stage.actor.receive(m.KvOverdrawn())
    stage.cancel("r2")
    stage.preempted(sequence, 11, 12, unsent=1)
    usage = m.Usage(3, 0, 2)
    assert stage.client.last_words() == [m.Cancelled(R2, CancelCause.CLIENT_LEFT, usage)]
    assert stage.admitter.take() == [m.RequestPreempted(R2), m.RequestClosed(R2, usage)]
    assert stage.actor.snapshot().waiting == ()


def test_who_is_cancelled_in_line_after_a_preemption_has_its_output_counted() -> None:
    stage = Stage()
    stage.stage("r1")
    sequence = stage.stage("r2", cached_tokens=2)
    stage.preempted(sequence, 11, 12)
    stage.cancel("r2")
    assert stage.client.last_words() == [m.Cancelled(R2, CancelCause.CLIENT_LEFT, m.Usage(3, 2, 2))]


def test_who_finishes_before_it_could_go_back_is_simply_at_its_end() -> None:
    stage, _ = two_on_stage()
    stage.actor.receive(m.KvOverdrawn())
    stage.end("r2", 1, held=(1, 2))
    assert stage.cache.take() == [m.ReleaseKv(R2, SequenceId(FIRST_ID + 1), (1, 2))]
    assert [type(each) for each in stage.admitter.take()] == [m.RequestClosed]
    shown = stage.actor.snapshot()
    assert (shown.waiting, shown.prefilling, shown.preemptions) == ((), ("r1",), 0)


def test_a_preemption_is_told_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    stage, sequence = two_on_stage()
    stage.actor.receive(m.KvOverdrawn())
    with caplog.at_level("INFO", logger="troupe.scheduler"):
        stage.preempted(sequence, 11)
    assert caplog.messages == ["r2 goes back in line: its KV bytes are needed"]
    assert stage.admitter.take() == [m.RequestPreempted(R2)]
    assert stage.actor.snapshot().preemptions == 1


def test_a_suspect_that_goes_back_in_line_before_it_spoke_is_on_trial_again() -> None:
    stage = Stage(max_concurrency=4)
    stage.stage("r1")
    for name in ("s1", "s2"):
        stage.actor.receive(m.Enqueue(1, stage.client.request(name, arrived_at=2.0), (), suspect=True))
    sequence = stage.start("s1")
    stage.actor.receive(m.KvOverdrawn())
    stage.preempted(sequence)
    stage.end("r1")
    stage.cache.take()
    stage.start("s1")
    assert stage.cache.take() == []
    stage.actor.receive(m.SequenceSpoke(RequestId("s1")))
    assert [type(each) for each in stage.cache.take()] == [m.LeaseKv]


def test_turns_of_who_has_gone_back_are_not_granted() -> None:
    stage, sequence = two_on_stage()
    for name in ("r1", "r2"):
        stage.actor.receive(m.SequencePrefilled(RequestId(name)))
    stage.end("r1")
    stage.decode.take()
    stage.actor.receive(m.KvOverdrawn())
    stage.preempted(sequence, 11)
    stage.prefill.take()
    stage.decode.take()
    stage.actor.receive(m.DecodeTurnEnded(0, 0.0))
    assert stage.decode.take() == []
