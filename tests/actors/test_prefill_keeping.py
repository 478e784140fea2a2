"""PrefillWorker: what is kept on the way, beginnings that were found late, and going back in line."""

from dataclasses import replace

import pytest

from actors import messages as m
from runtime.engine import commands as c
from runtime.types import CancelCause, KvHandle, SequenceId, TokenOutput
from tests.actors.prefilling import R1, S1, Prefilling, checkpoint, sequence

TEN = tuple(range(10, 20))
HANDLES = (KvHandle(b"found"),)


def prefill(*ids: int, number: int = 1) -> c.Prefill:
    return c.Prefill((c.PrefillSlice(SequenceId(number), ids),))


def store(tokens: int, number: int = 1) -> c.StoreKv:
    return c.StoreKv(SequenceId(number), checkpoint(tokens).pieces)


def test_a_turn_ends_at_a_checkpoint_and_what_it_reached_is_stored_before_anything_is_added() -> None:
    worker = Prefilling()
    worker.start("r1", TEN, checkpoints=(4, 9))
    turns = []
    for budget, tokens in ((5, 4), (3, 3), (5, 2)):
        turns.append(worker.grant(budget))
        worker.answer(tokens)
    assert turns == [
        [prefill(10, 11, 12, 13), store(4)],
        [prefill(14, 15, 16)],
        [prefill(17, 18), store(9)],
    ]


def test_cache_manager_hears_what_was_stored() -> None:
    worker = Prefilling()
    worker.start("r1", TEN, checkpoints=(9,))
    worker.actor.receive(m.GrantPrefill(20))
    (_, to_itself), (_, to_cache_manager) = worker.engine.submitted
    assert (to_itself, to_cache_manager) == (worker.reply, worker.kept)


def test_each_of_several_prompts_stores_its_own_checkpoint_when_it_gets_there() -> None:
    worker = Prefilling()
    worker.start("r1", TEN, 1, checkpoints=(9,))
    worker.start("r2", TEN[:5], 2, checkpoints=(4,))
    slices = (c.PrefillSlice(S1, TEN[:6]), c.PrefillSlice(SequenceId(2), TEN[:4]))
    assert worker.grant(10) == [c.Prefill(slices), store(4, number=2)]


def test_a_beginning_found_late_is_loaded_and_the_rest_computed_behind_it() -> None:
    worker = Prefilling()
    started = worker.start("r1", TEN, checkpoints=(4, 9))
    worker.find(7)
    assert worker.engine.take() == [c.LoadKv(S1, HANDLES, 7)]
    worker.loaded(7)
    assert [type(word) for word in worker.cache_manager.take()] == [m.PrefixTaken]
    assert worker.grant(10) == [prefill(17, 18), store(9)]
    worker.answer(2)
    (join,) = worker.decode.take()
    assert isinstance(join, m.JoinDecode)
    assert (join.sequence.history, join.sequence.cached_tokens, join.sequence.hit_type) == (
        started.history,
        7,
        "prefix",
    )


def test_while_it_is_loaded_nothing_of_that_prompt_is_computed() -> None:
    worker = Prefilling()
    worker.start("r1", TEN, 1)
    worker.start("r2", TEN, 2)
    worker.find(7)
    worker.engine.take()
    assert worker.grant(4) == [prefill(*TEN[:4], number=2)]


def test_a_chunk_that_was_under_way_when_the_beginning_was_found_is_not_counted_twice() -> None:
    worker = Prefilling()
    worker.start("r1", TEN)
    worker.grant(3)
    worker.find(7)
    worker.engine.take()
    worker.answer(3)
    worker.loaded(7)
    assert worker.grant(10) == [prefill(17, 18)]
    worker.answer(2)
    assert worker.client.heard[-1] == m.PrefillAdvanced(R1, 9, 9)


def test_what_could_not_be_loaded_any_more_leaves_the_prompt_where_it_was() -> None:
    worker = Prefilling()
    worker.start("r1", TEN)
    worker.grant(3)
    worker.answer(3)
    worker.find(7)
    worker.engine.take()
    worker.loaded(0)
    assert worker.cache_manager.take() == []
    assert worker.grant(10) == [prefill(*TEN[3:9])]


def test_a_beginning_of_the_whole_prompt_leaves_nothing_to_compute() -> None:
    worker = Prefilling()
    worker.start("r1", TEN, checkpoints=(9,))
    worker.find(9)
    worker.loaded(9)
    assert [type(word) for word in worker.decode.take()] == [m.JoinDecode]
    assert worker.scheduler.take() == [m.SequencePrefilled(R1)]


@pytest.mark.parametrize("tokens", [2, 3])
def test_a_beginning_no_longer_than_what_was_computed_already_is_not_loaded(tokens: int) -> None:
    worker = Prefilling()
    worker.start("r1", TEN)
    worker.grant(3)
    worker.find(tokens)
    assert worker.engine.take() == []


def test_a_longer_beginning_that_is_found_while_one_is_loaded_is_loaded_behind_it() -> None:
    worker = Prefilling()
    worker.start("r1", TEN)
    for tokens in (5, 4, 5, 7):
        worker.find(tokens)
    assert worker.engine.take() == [c.LoadKv(S1, HANDLES, 5), c.LoadKv(S1, HANDLES, 7)]
    worker.loaded(5)
    assert worker.grant(10) == []
    worker.loaded(7)
    assert worker.engine.take() == [prefill(17, 18)]


def test_the_shorter_beginning_stays_where_the_longer_one_could_not_be_loaded_any_more() -> None:
    worker = Prefilling()
    worker.start("r1", TEN)
    worker.find(5)
    worker.find(7)
    worker.loaded(5)
    worker.loaded(0)
    worker.engine.take()
    assert worker.grant(10) == [prefill(*TEN[5:9])]


def test_a_beginning_that_is_found_before_the_prompt_has_come_is_loaded_when_it_comes() -> None:
    worker = Prefilling()
    worker.find(5)
    assert worker.engine.take() == []
    worker.start("r1", TEN)
    assert worker.engine.take() == [c.LoadKv(S1, HANDLES, 5)]
    assert worker.grant(10) == []


def test_a_beginning_for_somebody_who_has_gone_on_is_not_loaded() -> None:
    worker = Prefilling()
    worker.start("r1", (1,), 1)
    worker.find(5)
    worker.start("r2", TEN, 2)
    assert worker.engine.take() == []
    worker.start("r1", TEN, 3)
    assert worker.engine.take() == []


def waiting_turn() -> Prefilling:
    """A turn that found only a prompt that is being loaded."""
    worker = Prefilling()
    worker.start("r1", TEN)
    worker.find(7)
    worker.engine.take()
    assert worker.grant(5) == []
    assert worker.scheduler.take() == []
    return worker


def test_a_turn_that_finds_only_such_prompts_is_used_once_they_are_loaded() -> None:
    worker = waiting_turn()
    worker.loaded(7)
    assert worker.engine.take() == [prefill(17, 18)]
    worker.answer(2)
    assert [type(word) for word in worker.scheduler.take()] == [m.SequencePrefilled, m.PrefillTurnEnded]


def test_a_turn_that_waited_is_used_once() -> None:
    worker = waiting_turn()
    worker.loaded(0)
    worker.engine.take()
    worker.answer(5)
    worker.scheduler.take()
    worker.loaded(0, number=2)
    assert worker.engine.take() == []
    assert worker.scheduler.take() == []


def test_a_turn_that_waited_for_a_prompt_which_needs_nothing_more_is_given_back() -> None:
    worker = Prefilling()
    worker.start("r1", TEN)
    worker.find(9)
    worker.grant(5)
    worker.loaded(9)
    assert worker.scheduler.take() == [m.SequencePrefilled(R1), m.PrefillTurnEnded(0, 0.0)]


@pytest.mark.parametrize("word", [m.Cancel(R1, CancelCause.CLIENT_LEFT), m.Preempt(R1)], ids=["cancel", "preempt"])
def test_a_turn_that_waits_for_somebody_who_leaves_is_not_lost(word: m.Cancel | m.Preempt) -> None:
    worker = waiting_turn()
    worker.actor.receive(word)
    assert worker.scheduler.take()[1:] == [m.PrefillTurnEnded(0, 0.0)]
    worker.loaded(7)
    assert worker.scheduler.take() == []
    assert worker.cache_manager.take() == []


def test_a_turn_that_waits_is_used_for_whoever_came_meanwhile() -> None:
    worker = waiting_turn()
    worker.start("r2", TEN, 2)
    assert worker.engine.take() == [prefill(*TEN[:5], number=2)]
    worker.loaded(0)
    assert worker.engine.take() == []


# --- back in line ---


def test_a_prompt_that_goes_back_in_line_holds_what_the_engine_answered_for() -> None:
    worker = Prefilling()
    started = worker.start("r1", TEN)
    worker.grant(3)
    worker.answer(3)
    worker.grant(3)
    worker.scheduler.take()
    worker.actor.receive(m.Preempt(R1))
    assert worker.scheduler.take() == [m.SequencePreempted(started, (), (), TEN[:3])]
    assert worker.client.last_words() == []
    worker.answer(3)
    assert worker.scheduler.take() == [m.PrefillTurnEnded(3, 0.5)]


def test_a_prompt_that_goes_back_a_second_time_keeps_its_output_and_what_was_not_taken_of_it() -> None:
    worker = Prefilling()
    request = worker.client.request("r1", TEN)
    unsent = (TokenOutput(32),)
    started = m.Sequence(request, S1, (*TEN, 31, 32), 0, sequence(request).hit_type, unsent=unsent)
    worker.begin(started)
    worker.actor.receive(m.Preempt(R1))
    assert worker.scheduler.take() == [m.SequencePreempted(started, (31, 32), unsent, ())]


def test_a_word_to_go_back_follows_a_sequence_that_went_on() -> None:
    worker = Prefilling()
    worker.start("r1", (1,))
    worker.decode.take()
    worker.actor.receive(m.Preempt(R1))
    assert worker.decode.take() == [m.Preempt(R1)]


@pytest.mark.parametrize("word", [m.Cancel(R1, CancelCause.CLIENT_LEFT), m.Preempt(R1)], ids=["cancel", "preempt"])
def test_what_a_turn_did_for_an_earlier_run_is_not_booked_for_the_next(word: m.Cancel | m.Preempt) -> None:
    worker = Prefilling()
    worker.start("r1", TEN, 1)
    worker.grant(9)
    worker.actor.receive(word)
    worker.start("r1", TEN, 2)
    worker.answer(9)
    assert worker.decode.take() == []
    assert worker.grant(10) == [prefill(*TEN[:9], number=2)]


def test_scores_of_an_earlier_run_do_not_get_into_the_next_ones() -> None:
    worker = Prefilling()
    started = worker.start_scoring("r1", (1, 2, 3), 1)
    worker.grant(2)
    worker.actor.receive(m.Preempt(R1))
    worker.begin(replace(started, sequence_id=SequenceId(2)))
    targets = (TokenOutput(2, -2.0), TokenOutput(3, -3.0))
    worker.answer(2, c.ScoredSlice(S1, targets))
    assert [reply for reply in worker.client.heard if isinstance(reply, m.PromptScored)] == []
    worker.grant(2)
    worker.answer(2, c.ScoredSlice(SequenceId(2), targets))
    assert worker.client.heard[-1] == m.PromptScored(R1, (TokenOutput(1), *targets))


def test_a_prompt_that_fails_in_an_earlier_run_does_not_end_the_next() -> None:
    worker = Prefilling()
    worker.start("r1", TEN, 1)
    worker.grant(9)
    worker.actor.receive(m.Preempt(R1))
    worker.start("r1", TEN, 2)
    result = c.Prefilled(0, 0.5, failed=(c.SequenceFailed(S1, "planted"),))
    worker.actor.receive(m.EngineReplied(result, at=1.0))
    assert worker.client.last_words() == []
    assert worker.grant(10) == [prefill(*TEN[:9], number=2)]
