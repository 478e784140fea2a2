"""PrefillWorker: how prompts get into the KV cache, with their scores."""

from actors import messages as m
from runtime.engine import commands as c
from runtime.types import CancelCause, FinishReason, RequestId, SequenceId, TokenOutput
from tests.actors.prefilling import R1, S1, Prefilling, sequence


def test_a_long_prompt_goes_in_by_chunks_and_its_last_id_is_left_to_decode() -> None:
    worker = Prefilling()
    started = worker.start("r1", (1, 2, 3, 4, 5, 6))
    assert worker.grant(3) == [c.Prefill((c.PrefillSlice(S1, (1, 2, 3)),))]
    worker.answer(3)
    assert worker.client.heard == [m.PrefillAdvanced(R1, 3, 5)]
    assert worker.scheduler.take() == [m.PrefillTurnEnded(3, 0.5)]
    assert worker.grant(3) == [c.Prefill((c.PrefillSlice(S1, (4, 5)),))]
    worker.answer(2)
    assert worker.decode.take() == [m.JoinDecode(started)]
    assert worker.scheduler.take() == [m.SequencePrefilled(R1), m.PrefillTurnEnded(2, 0.5)]


def test_several_short_prompts_share_a_turn() -> None:
    worker = Prefilling()
    worker.start("r1", (1, 2, 3), 1)
    worker.start("r2", (4, 5, 6, 7), 2)
    slices = (c.PrefillSlice(SequenceId(1), (1, 2)), c.PrefillSlice(SequenceId(2), (4, 5)))
    assert worker.grant(4) == [c.Prefill(slices)]


def test_a_prompt_of_one_id_needs_no_prefill() -> None:
    worker = Prefilling()
    started = worker.start("r1", (1,))
    assert worker.decode.take() == [m.JoinDecode(started)]
    assert worker.scheduler.take() == [m.SequencePrefilled(R1)]
    assert worker.engine.take() == []


def test_behind_a_cached_prefix_only_the_rest_is_prefilled() -> None:
    worker = Prefilling()
    worker.start("r1", (1, 2, 3, 4, 5), cached=3)
    assert worker.engine.take() == []  # CacheManager had it loaded
    assert worker.grant(10) == [c.Prefill((c.PrefillSlice(S1, (4,)),))]


def test_a_grant_that_finds_nothing_to_do_is_given_back_at_once() -> None:
    worker = Prefilling()
    assert worker.grant(10) == []
    assert worker.scheduler.take() == [m.PrefillTurnEnded(0, 0.0)]


def test_a_prompt_cancelled_with_a_chunk_under_way_holds_what_the_engine_answered_for() -> None:
    worker = Prefilling()
    worker.start("r1", (1, 2, 3, 4, 5))
    worker.grant(2)
    worker.answer(2)
    worker.grant(2)
    worker.scheduler.take()
    worker.actor.receive(m.Cancel(R1, CancelCause.CLIENT_LEFT))
    usage = m.Usage(5, 0, 0)
    assert worker.client.last_words() == [m.Cancelled(R1, CancelCause.CLIENT_LEFT, usage)]
    assert worker.scheduler.take() == [m.SequenceEnded(R1, S1, usage, held=(1, 2))]
    worker.answer(2)
    assert worker.scheduler.take() == [m.PrefillTurnEnded(2, 0.5)]
    assert worker.decode.heard == []


def test_a_prompt_that_made_the_engine_raise_fails_alone() -> None:
    worker = Prefilling()
    worker.start("r1", (1, 2, 3), 1)
    started = worker.start("r2", (4, 5), 2)
    worker.grant(10)
    result = c.Prefilled(1, 0.5, failed=(c.SequenceFailed(S1, "planted"),))
    worker.actor.receive(m.EngineReplied(result, at=1.0))
    assert worker.client.last_words() == [m.Failed(R1, "planted")]
    assert worker.decode.take() == [m.JoinDecode(started)]
    assert m.SequenceEnded(R1, S1, m.Usage(3, 0, 0), held=()) in worker.scheduler.heard


def scored(number: int, *targets: int) -> c.ScoredSlice:
    return c.ScoredSlice(SequenceId(number), tuple(TokenOutput(target, -float(target)) for target in targets))


def score(token_id: int) -> TokenOutput:
    return TokenOutput(token_id, -float(token_id))


def test_a_scored_prompt_asks_for_every_id_but_the_first_and_tells_the_scores_once_it_is_done() -> None:
    worker = Prefilling()
    started = worker.start_scoring("r1", (1, 2, 3, 4))
    assert worker.grant(2) == [c.Prefill((c.PrefillSlice(S1, (1, 2), targets=(2, 3), top_logprobs=2),))]
    worker.answer(2, scored(1, 2, 3))
    assert worker.client.heard == [m.PrefillAdvanced(R1, 2, 3)]
    assert worker.grant(2) == [c.Prefill((c.PrefillSlice(S1, (3,), targets=(4,), top_logprobs=2),))]
    worker.answer(1, scored(1, 4))
    told = m.PromptScored(R1, (TokenOutput(1), score(2), score(3), score(4)))
    assert worker.client.heard == [m.PrefillAdvanced(R1, 2, 3), m.PrefillAdvanced(R1, 3, 3), told]
    assert worker.decode.take() == [m.JoinDecode(started)]


def test_scores_go_to_the_prompts_they_belong_to_and_prompts_beside_them_ask_for_none() -> None:
    worker = Prefilling()
    worker.start_scoring("r1", (1, 2), 1)
    worker.start("r2", (1, 3), 2)
    worker.start_scoring("r3", (1, 4), 3)
    slices = (
        c.PrefillSlice(SequenceId(1), (1,), (2,), 2),
        c.PrefillSlice(SequenceId(2), (1,)),
        c.PrefillSlice(SequenceId(3), (1,), (4,), 2),
    )
    assert worker.grant(10) == [c.Prefill(slices)]
    worker.answer(3, scored(3, 4), scored(1, 2))
    told = [reply for reply in worker.client.heard if isinstance(reply, m.PromptScored)]
    assert told == [
        m.PromptScored(R1, (TokenOutput(1), score(2))),
        m.PromptScored(RequestId("r3"), (TokenOutput(1), score(4))),
    ]


def test_the_scores_of_a_prompt_of_one_id_are_told_at_once() -> None:
    worker = Prefilling()
    worker.start_scoring("r1", (7,))
    assert worker.client.heard == [m.PromptScored(R1, (TokenOutput(7),))]
    assert worker.engine.take() == []


def test_scores_that_the_client_has_from_an_earlier_life_are_not_asked_for_again() -> None:
    worker = Prefilling()
    request = worker.client.request("r1", (1, 2), score_prompt=2)
    request.sink.prompt_scored(m.PromptScored(R1, (TokenOutput(1), score(2))))
    worker.begin(sequence(request, output=(11,)))
    assert worker.grant(10) == [c.Prefill((c.PrefillSlice(S1, (1, 2)),))]
    worker.answer(2)
    assert sum(isinstance(reply, m.PromptScored) for reply in worker.client.heard) == 1


def test_a_scored_prompt_cancelled_half_way_tells_no_scores() -> None:
    worker = Prefilling()
    worker.start_scoring("r1", (1, 2, 3))
    worker.grant(1)
    worker.actor.receive(m.Cancel(R1, CancelCause.CLIENT_LEFT))
    worker.answer(1, scored(1, 2))
    assert [type(reply) for reply in worker.client.heard] == [m.Cancelled]


def test_a_request_for_no_tokens_ends_with_its_prompt() -> None:
    worker = Prefilling()
    worker.start_scoring("r1", (1, 2), max_tokens=0)
    worker.grant(10)
    worker.answer(1, scored(1, 2))
    usage = m.Usage(2, 0, 0)
    told = m.PromptScored(R1, (TokenOutput(1), score(2)))
    assert worker.client.heard[1:] == [told, m.Finished(R1, (), FinishReason.LENGTH, usage)]
    assert worker.decode.heard == []
    assert worker.scheduler.take() == [m.SequenceEnded(R1, S1, usage, held=(1,)), m.PrefillTurnEnded(1, 0.5)]


def test_a_cancel_for_a_sequence_that_went_on_follows_it() -> None:
    worker = Prefilling()
    worker.start("r1", (1,))
    worker.decode.take()
    cancel = m.Cancel(R1, CancelCause.DEADLINE)
    worker.actor.receive(cancel)
    assert worker.decode.take() == [cancel]
    assert worker.client.last_words() == []
