"""Scheduler: how many run at once, and how those come through that nobody waits for."""

import pytest

from actors import messages as m
from actors.policies.stage import PATIENCE
from runtime.types import CancelCause, HitType, RequestId, RuntimeMode
from tests.actors.stage import Stage

AUTO, SIMPLE, BATCHED = RuntimeMode.AUTO, RuntimeMode.SIMPLE, RuntimeMode.BATCHED


def on_stage(stage: Stage) -> tuple[str, ...]:
    """Users; those of the background are told with the waiting ones."""
    shown = stage.actor.snapshot()
    return shown.prefilling + shown.decoding


# --- modes ---


def test_auto_runs_one_until_as_many_meet_as_the_threshold_says_and_then_many_for_good() -> None:
    stage = Stage(8, mode=AUTO, mode_threshold=3)
    stage.enqueue("r1", "r2")
    stage.start("r1")
    assert stage.asked() == ["r1"]
    assert stage.actor.snapshot().mode is SIMPLE
    stage.enqueue("r3")
    assert stage.asked() == ["r2"]
    stage.start("r2")
    stage.start("r3")
    for number, name in enumerate(("r1", "r2", "r3")):
        stage.end(name, number)
    assert stage.actor.snapshot().mode is BATCHED


def test_simple_runs_one_whoever_waits() -> None:
    stage = Stage(1, mode=SIMPLE)
    stage.enqueue("r1", "r2", "r3", "r4")
    stage.start("r1")
    assert stage.asked() == ["r1"]
    stage.end("r1")
    assert stage.asked() == ["r2"]
    assert stage.actor.snapshot().mode is SIMPLE


def test_the_background_does_not_make_auto_batched() -> None:
    stage = Stage(8, mode=AUTO, mode_threshold=2)
    stage.stage("r1")
    stage.enqueue_background("b1", "b2", "b3")
    assert stage.actor.snapshot().mode is SIMPLE


# --- one at a time while answers diverge ---


def test_while_answers_diverge_one_comes_on_once_the_last_one_is_done() -> None:
    stage = Stage(8)
    for name in ("r1", "r2"):
        stage.stage(name)
    stage.asked()
    stage.actor.receive(m.DivergenceMeasured(True))
    assert stage.actor.snapshot().serialised
    stage.enqueue("r3", "r4", "r5", "r6")
    assert stage.asked() == []
    assert on_stage(stage) == ("r1", "r2")  # They run to their last token.
    stage.end("r1", 0)
    assert stage.asked() == []
    stage.end("r2", 1)
    assert stage.asked() == ["r3"]
    stage.start("r3")
    assert stage.asked() == []
    stage.actor.receive(m.DivergenceMeasured(False))
    assert not stage.actor.snapshot().serialised
    for name in ("r4", "r5", "r6"):
        assert stage.asked() == [name]
        stage.start(name)


def test_where_nothing_is_to_be_done_about_it_requests_go_on_together() -> None:
    stage = Stage(8, may_serialise=False)
    stage.stage("r1")
    stage.actor.receive(m.DivergenceMeasured(True))
    stage.asked()
    stage.enqueue("r2")
    assert stage.asked() == ["r2"]
    assert not stage.actor.snapshot().serialised


def test_a_life_goes_on_as_the_last_one_ended() -> None:
    stage = Stage(8, serialised=True)
    stage.stage("r1")
    stage.asked()
    stage.enqueue("r2")
    assert stage.asked() == []


def test_that_it_begins_and_ends_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(8)
    with caplog.at_level("INFO", logger="troupe.scheduler"):
        for diverged in (False, True, True, False):
            stage.actor.receive(m.DivergenceMeasured(diverged))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


# --- the background ---


def test_with_nobody_there_the_background_comes_on_together() -> None:
    stage = Stage(4)
    stage.enqueue_background("b1", "b2", "b3")
    for name in ("b1", "b2", "b3"):
        assert stage.asked() == [name]
        stage.start(name)
    shown = stage.actor.snapshot()
    assert set(shown.background) == {"b1", "b2", "b3"}
    assert (shown.waiting, shown.prefilling, shown.decoding) == ((), (), ())


@pytest.mark.parametrize("mode", [AUTO, BATCHED])
@pytest.mark.parametrize("serialised", [False, True])
def test_the_background_is_company_for_itself_in_every_mode(mode: RuntimeMode, serialised: bool) -> None:
    stage = Stage(4, mode=mode, serialised=serialised)
    stage.enqueue_background("b1", "b2")
    stage.start("b1")
    stage.start("b2")
    assert stage.asked() == ["b1", "b2"]


def test_those_that_run_apart_come_one_by_one() -> None:
    """Each step takes as many passes through the model as there are of them."""
    stage = Stage(4)
    stage.enqueue_background("b1", "b2", apart=True)
    stage.start("b1")
    assert stage.asked() == ["b1"]
    stage.enqueue("r1")
    assert stage.asked() == ["r1"]
    stage.start("r1")
    stage.end("r1", 1)
    assert stage.asked() == []
    stage.end("b1")
    assert stage.asked() == ["b2"]


def test_the_door_hears_nothing_of_it() -> None:
    stage = Stage()
    stage.enqueue_background("b1", "b2", "b3")
    sequence = stage.start("b1")
    stage.start("b2")
    stage.preempted(sequence)
    stage.end("b2", 1)
    stage.cancel("b3")
    assert stage.admitter.heard == []
    assert [word.request_id for word in stage.client.last_words()] == ["b3"]
    assert stage.actor.snapshot().preemptions == 0


def test_beside_users_it_takes_a_free_seat_once_it_was_patient() -> None:
    stage = Stage(3)
    stage.stage("r1")
    stage.enqueue_background("b1", "b2", "b3")
    stage.asked()
    stage.let_turns_pass(PATIENCE - 8)
    assert stage.asked() == []
    stage.let_turns_pass(8)
    assert stage.asked() == ["b1"]
    stage.start("b1")
    assert stage.asked() == ["b2"]
    stage.start("b2")
    assert stage.asked() == []
    assert stage.preempts() == []


def test_who_waits_goes_first_and_takes_the_seat_of_the_background() -> None:
    stage = Stage(2)
    stage.enqueue_background("b1", "b2", "b3")
    stage.start("b1")
    last = stage.start("b2")
    stage.asked()
    stage.enqueue("r1")
    assert stage.preempts() == ["b2"]
    stage.enqueue("r2")
    assert stage.preempts() == []  # One is on the way out.
    stage.preempted(last, 11, 12)
    assert stage.asked() == ["r1"]
    stage.start("r1")
    assert stage.preempts() == ["b1"]


def test_who_was_preempted_of_it_begins_again_at_its_prompt() -> None:
    stage = Stage(1)
    stage.enqueue_background("b1")
    sequence = stage.start("b1", cached_tokens=1)
    stage.enqueue("r1")
    stage.preempted(sequence, 11, 12)
    stage.start("r1")
    stage.end("r1", 1)
    again = stage.start("b1")
    assert (again.history, again.unsent, again.served_before) == ((1, 2, 3), (), None)


def test_where_there_is_no_room_for_a_user_the_background_makes_it() -> None:
    stage = Stage(4)
    stage.stage("r1")
    stage.enqueue_background("b1")
    stage.let_turns_pass(PATIENCE + 1)
    sequence = stage.start("b1")
    stage.enqueue("r2")
    stage.prefill.take()
    stage.actor.receive(m.KvRefused(RequestId("r2")))
    assert stage.preempts() == ["b1"]
    stage.asked()
    stage.preempted(sequence)
    assert stage.asked() == ["r2"]


def test_when_the_kv_bytes_run_out_the_background_goes_first() -> None:
    stage = Stage(4)
    stage.enqueue_background("b1")
    sequence = stage.start("b1")
    for name in ("r1", "r2"):
        stage.stage(name, arrived_at=5.0)
    stage.prefill.take()
    stage.actor.receive(m.KvOverdrawn())
    assert stage.preempts() == ["b1"]
    stage.preempted(sequence)
    stage.actor.receive(m.KvOverdrawn())
    assert stage.preempts() == ["r2"]


def test_it_is_not_asked_for_again_before_somebody_has_left() -> None:
    stage = Stage(4)
    stage.enqueue_background("b1", "b2")
    stage.start("b1")
    stage.asked()
    stage.actor.receive(m.KvRefused(RequestId("b2")))
    stage.enqueue_background("b3")
    assert stage.asked() == []
    stage.end("b1")
    assert stage.asked() == ["b2"]


def test_one_at_a_time_a_user_sends_all_of_it_back_and_waits_until_it_is_gone() -> None:
    stage = Stage(4, serialised=True)
    stage.enqueue_background("b1", "b2")
    sequences = [stage.start(name) for name in ("b1", "b2")]
    stage.asked()
    stage.enqueue("r1")
    assert sorted(stage.preempts()) == ["b1", "b2"]
    stage.enqueue("r2")
    assert stage.preempts() == []  # Each is told once.
    stage.preempted(sequences[0])
    assert stage.asked() == []
    stage.preempted(sequences[1])
    assert stage.asked() == ["r1"]
    stage.start("r1")
    stage.end("r1", 2)
    assert stage.asked() == ["r2"]


def test_one_at_a_time_the_background_gets_the_next_empty_stage_in_the_end_and_keeps_it() -> None:
    stage = Stage(4, serialised=True)
    stage.stage("r1")
    stage.enqueue_background("b1", "b2")
    stage.enqueue("r2", "r3")
    stage.asked()
    stage.let_turns_pass(PATIENCE)
    assert stage.asked() == []
    stage.end("r1")
    for name in ("b1", "b2"):
        assert stage.asked() == [name]
        stage.start(name)
    assert stage.preempts() == []
    stage.end("b1", 1)
    assert stage.asked() == []
    stage.end("b2", 2)
    assert stage.asked() == ["r2"]
    stage.enqueue_background("b3")  # The next ones are patient anew.
    stage.start("r2")
    stage.end("r2", 3)
    assert stage.asked() == ["r3"]


def test_what_nobody_may_begin_with_is_left_to_no_cache() -> None:
    stage = Stage()
    stage.enqueue_background("b1", leaves_kv=False)
    sequence = stage.start("b1")
    stage.cache.take()
    stage.end("b1", held=(1, 2, 3))
    assert stage.cache.take() == [m.ReleaseKv(RequestId("b1"), sequence.sequence_id, ())]


def test_it_is_cancelled_in_line_and_while_its_lease_is_considered() -> None:
    stage = Stage(1)
    stage.enqueue_background("b1", "b2")
    stage.cancel("b2")
    stage.cancel("b1")
    stage.lease("b1")
    assert [word.request_id for word in stage.client.last_words()] == ["b2", "b1"]
    assert stage.actor.snapshot().background == ()
    assert all(isinstance(word, m.Cancelled) for word in stage.client.last_words())


def test_the_pace_is_kept_for_users_alone() -> None:
    stage = Stage()
    stage.enqueue_background("b1")
    stage.start("b1")
    stage.actor.receive(m.SequencePrefilled(RequestId("b1")))
    stage.actor.receive(m.PrefillTurnEnded(3, 0.2))
    stage.actor.receive(m.DecodeTurnEnded(2, 1.0))
    stage.end("b1")
    stage.actor.receive(m.DecodeTurnEnded(2, 1.0))
    shown = stage.actor.snapshot()
    assert shown.usual_step_s is None
    assert (shown.step_s, shown.prefill_s, shown.prefill_tokens) == (0.5, 0.2, 3)
    stage.enqueue_background("b2")
    stage.start("b2")
    stage.actor.receive(m.SequencePrefilled(RequestId("b2")))
    stage.actor.receive(m.PrefillTurnEnded(3, 0.2))
    stage.prefill.take()
    stage.enqueue("r1")
    stage.lease("r1")
    stage.actor.receive(m.DecodeTurnEnded(1, 1.0))
    assert m.GrantPrefill(64) in stage.prefill.heard  # As large as turns may be: no stream of a user's is held up.


def test_who_comes_on_stage_is_told_so_with_what_the_cache_serves() -> None:
    stage = Stage()
    stage.enqueue("r1")
    stage.actor.receive(m.KvLeased(RequestId("r1"), 2, HitType.PREFIX))
    assert stage.client.heard == [m.Staged(RequestId("r1"), 2)]
    stage.cancel("r1")
    assert stage.prefill.heard[-1] == m.Cancel(RequestId("r1"), CancelCause.CLIENT_LEFT)
