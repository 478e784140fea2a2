"""PrefillWorker: prompts that begin like an older one, and wait for it."""

import pytest

from actors import messages as m
from runtime.engine import commands as c
from runtime.types import CancelCause, RequestId, SequenceId
from tests.actors.prefilling import R1, S1, Prefilling, checkpoint, sequence

SYSTEM = tuple(range(1000, 1100))
"""What they have in common."""
FIRST, SECOND, THIRD = ((*SYSTEM, *range(n, n + 9)) for n in (100, 200, 300))
END = len(FIRST) - 1
BUDGET = 500
LEFT = m.Cancel(R1, CancelCause.CLIENT_LEFT)


def two_alike(*, trimmable: bool = True, checkpoints: tuple[int, ...] = (END,)) -> Prefilling:
    worker = Prefilling(trimmable=trimmable)
    worker.start("r1", FIRST, 1, checkpoints=checkpoints)
    worker.start("r2", SECOND, 2, checkpoints=checkpoints)
    return worker


def computed(commands: list[c.Command]) -> dict[int, int]:
    """How many ids of which sequence."""
    slices = [each for command in commands if isinstance(command, c.Prefill) for each in command.slices]
    return {each.sequence_id: len(each.token_ids) for each in slices}


def stored(worker: Prefilling) -> None:
    """The first prompt is computed, and its checkpoint on its way; nobody has been told yet."""
    assert computed(worker.grant(BUDGET)) == {1: END}
    worker.answer(END)
    worker.scheduler.take()


def test_a_prompt_waits_until_what_it_begins_with_is_kept_and_computes_the_rest() -> None:
    worker = two_alike()
    stored(worker)
    assert worker.grant(BUDGET) == []
    worker.find(len(SYSTEM), "r2")
    worker.handled()
    assert [type(command) for command in worker.engine.take()] == [c.LoadKv]
    worker.loaded(len(SYSTEM), 2)
    assert computed(worker.engine.take()) == {2: END - len(SYSTEM)}


def test_a_turn_that_finds_only_prompts_that_wait_is_used_once_they_may_go_on() -> None:
    worker = two_alike()
    stored(worker)
    worker.grant(BUDGET)
    assert worker.scheduler.take() == []
    worker.handled()
    assert computed(worker.engine.take()) == {2: END}
    worker.answer(END)
    assert [type(word) for word in worker.scheduler.take()] == [m.SequencePrefilled, m.PrefillTurnEnded]


def test_a_turn_whose_prompts_leave_while_it_waits_is_given_back() -> None:
    worker = two_alike()
    stored(worker)
    worker.grant(BUDGET)
    worker.actor.receive(m.Preempt(RequestId("r2")))
    assert [type(word) for word in worker.scheduler.take()] == [m.SequencePreempted, m.PrefillTurnEnded]


@pytest.mark.parametrize("word", [LEFT, m.Preempt(R1)], ids=["cancel", "preempt"])
@pytest.mark.parametrize("budget", [50, BUDGET], ids=["half-way", "stored but not told"])
def test_it_goes_on_at_once_when_who_it_waits_for_leaves(word: m.Cancel | m.Preempt, budget: int) -> None:
    worker = two_alike()
    assert computed(worker.grant(budget)) == {1: min(budget, END)}
    worker.actor.receive(word)
    assert computed(worker.grant(BUDGET)) == {2: END}


def test_it_goes_on_at_once_when_who_it_waits_for_fails() -> None:
    worker = two_alike()
    worker.grant(BUDGET)
    failed = (c.SequenceFailed(S1, "planted"),)
    worker.actor.receive(m.EngineReplied(c.Prefilled(0, 0.5, failed=failed), at=1.0))
    assert computed(worker.grant(BUDGET)) == {2: END}


def test_of_three_the_second_computes_it_if_the_first_leaves_and_the_third_waits_for_that() -> None:
    worker = two_alike()
    worker.start("r3", THIRD, 3, checkpoints=(END,))
    worker.actor.receive(LEFT)
    assert computed(worker.grant(BUDGET)) == {2: END}
    worker.answer(END)
    assert worker.grant(BUDGET) == []
    worker.handled(2)
    assert computed(worker.engine.take()) == {3: END}


def test_who_comes_when_it_is_being_stored_waits_too() -> None:
    worker = Prefilling()
    worker.start("r1", FIRST, 1, checkpoints=(END,))
    stored(worker)
    worker.start("r2", SECOND, 2)
    assert worker.grant(BUDGET) == []


def test_who_comes_when_everybody_has_been_told_does_not_wait() -> None:
    worker = Prefilling()
    worker.start("r1", FIRST, 1, checkpoints=(END,))
    stored(worker)
    worker.handled()
    worker.start("r2", SECOND, 2)
    assert computed(worker.grant(BUDGET)) == {2: END}


def test_a_checkpoint_on_the_way_is_waited_for_and_no_more_than_that() -> None:
    worker = two_alike(trimmable=False, checkpoints=(len(SYSTEM), END))
    assert computed(worker.grant(BUDGET)) == {1: len(SYSTEM)}
    worker.answer(len(SYSTEM))
    assert computed(worker.grant(BUDGET)) == {1: END - len(SYSTEM)}
    worker.answer(END - len(SYSTEM))
    worker.handled()
    assert computed(worker.grant(BUDGET)) == {2: len(SYSTEM)}


def test_each_checkpoint_of_a_prompt_is_handled_for_itself() -> None:
    both = (*SYSTEM, *SYSTEM)
    worker = Prefilling(trimmable=False)
    worker.start("r1", (*both, 1), 1, checkpoints=(100, 200))
    worker.start("r2", (*both, 2), 2)
    for _ in range(2):
        assert computed(worker.grant(BUDGET)) == {1: 100}
        worker.answer(100)
    worker.handled()
    worker.find(100, "r2")
    worker.loaded(100, 2)
    worker.engine.take()
    assert worker.grant(BUDGET) == []
    worker.handled()
    assert computed(worker.engine.take()) == {2: 100}


def test_word_of_a_checkpoint_of_somebody_who_has_left_is_nothing_to_it() -> None:
    worker = two_alike()
    worker.grant(BUDGET)
    worker.actor.receive(LEFT)
    worker.handled()
    assert computed(worker.grant(BUDGET)) == {2: END}


def test_where_nothing_is_kept_nobody_waits() -> None:
    worker = two_alike(checkpoints=())
    assert computed(worker.grant(BUDGET)) == {1: END, 2: END}


def test_where_caches_cannot_be_cut_nobody_waits_for_what_comes_too_late() -> None:
    worker = two_alike(trimmable=False)
    assert computed(worker.grant(BUDGET)) == {1: END, 2: END}


def test_nobody_waits_for_another_tenant() -> None:
    worker = Prefilling()
    worker.start("r1", FIRST, 1, checkpoints=(END,))
    worker.start_salted("r2", SECOND, 2, salt="theirs")
    assert computed(worker.grant(BUDGET)) == {1: END, 2: END}


def test_a_prompt_that_is_to_be_scored_waits_for_nobody() -> None:
    worker = Prefilling()
    worker.start("r1", FIRST, 1, checkpoints=(END,))
    worker.start_scoring("r2", SECOND, 2)
    assert computed(worker.grant(BUDGET)) == {1: END, 2: END}


def test_a_prompt_that_is_scored_is_waited_for_as_any_other() -> None:
    worker = Prefilling()
    request = worker.client.request("r1", FIRST, score_prompt=0)
    worker.begin(sequence(request, checkpoints=(checkpoint(END),)))
    worker.start("r2", SECOND, 2)
    assert computed(worker.grant(BUDGET)) == {1: END}


def test_a_prompt_that_has_begun_with_what_they_share_does_not_wait() -> None:
    worker = Prefilling()
    worker.start("r1", FIRST, 1, cached=50, checkpoints=(END,))
    worker.start("r2", SECOND, 2, cached=50, checkpoints=(END,))
    assert computed(worker.grant(BUDGET)) == {1: END - 50, 2: END - 50}


def test_the_end_of_a_request_for_no_tokens_is_waited_for_until_all_are_told() -> None:
    worker = Prefilling()
    request = worker.client.request("r1", FIRST, max_tokens=0)
    worker.begin(sequence(request, checkpoints=(checkpoint(END),)))
    worker.start("r2", SECOND, 2)
    stored(worker)
    assert worker.grant(BUDGET) == []
    worker.handled()
    assert worker.engine.take() == [c.Prefill((c.PrefillSlice(SequenceId(2), SECOND[:END]),))]
