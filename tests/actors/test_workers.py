"""PrefillWorker and DecodeWorker: what they tell the engine, the Scheduler and the client."""

from actors import messages as m
from actors.decode_worker import DecodeWorker
from actors.prefill_worker import PrefillWorker
from runtime.engine import commands as c
from runtime.types import CancelCause, FinishReason, HitType, KvHandle, RequestId, SequenceId, TokenOutput
from tests.fakes import Client, Recorder, RecordingEngine, no_reply

R1, S1 = RequestId("r1"), SequenceId(1)


def sequence(request: m.Request, number: int = 1, *, cached: int = 0, output: tuple[int, ...] = ()) -> m.Sequence:
    return m.Sequence(
        request=request,
        sequence_id=SequenceId(number),
        history=request.prompt_ids + output,
        cached_tokens=cached,
        hit_type=HitType.PREFIX if cached else HitType.MISS,
        kv=KvHandle(77) if cached else None,
    )


class Prefilling:
    def __init__(self) -> None:
        self.engine = RecordingEngine()
        self.scheduler = Recorder[m.SequencePrefilled | m.SequenceEnded | m.PrefillTurnEnded]()
        self.decode = Recorder[m.JoinDecode | m.Cancel]()
        self.client = Client()
        self.actor = PrefillWorker(
            engine=self.engine, reply=no_reply, scheduler=self.scheduler, decode_worker=self.decode
        )

    def start(self, name: str, prompt: tuple[int, ...], number: int = 1, *, cached: int = 0) -> m.Sequence:
        return self.begin(sequence(self.client.request(name, prompt), number, cached=cached))

    def start_scoring(self, name: str, prompt: tuple[int, ...], number: int = 1, *, max_tokens: int = 5) -> m.Sequence:
        return self.begin(sequence(self.client.request(name, prompt, score_prompt=2, max_tokens=max_tokens), number))

    def begin(self, started: m.Sequence) -> m.Sequence:
        self.actor.receive(m.StartPrefill(started))
        return started

    def grant(self, budget: int) -> list[c.Command]:
        self.actor.receive(m.GrantPrefill(budget))
        return self.engine.take()

    def answer(self, tokens: int, *scored: c.ScoredSlice) -> None:
        self.actor.receive(m.EngineReplied(c.Prefilled(tokens, 0.5, scored=scored), at=1.0))


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


def test_a_cached_prefix_is_loaded_and_only_the_rest_is_prefilled() -> None:
    worker = Prefilling()
    worker.start("r1", (1, 2, 3, 4, 5), cached=3)
    assert worker.engine.take() == [c.LoadKv(KvHandle(77), S1, 3)]
    assert worker.grant(10) == [c.Prefill((c.PrefillSlice(S1, (4,)),))]


def test_a_grant_that_finds_nothing_to_do_is_given_back_at_once() -> None:
    worker = Prefilling()
    assert worker.grant(10) == []
    assert worker.scheduler.take() == [m.PrefillTurnEnded(0, 0.0)]


def test_a_prompt_cancelled_with_a_chunk_under_way_is_forgotten_and_its_result_ignored() -> None:
    worker = Prefilling()
    worker.start("r1", (1, 2, 3, 4, 5))
    worker.grant(2)
    worker.actor.receive(m.Cancel(R1, CancelCause.CLIENT_LEFT))
    assert worker.engine.take() == [c.Forget((S1,))]
    usage = m.Usage(5, 0, 0)
    assert worker.client.last_words() == [m.Cancelled(R1, CancelCause.CLIENT_LEFT, usage)]
    assert worker.scheduler.take() == [m.SequenceEnded(R1, usage, kept=None)]
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
    assert m.SequenceEnded(R1, m.Usage(3, 0, 0), None) in worker.scheduler.heard


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
    assert worker.engine.take() == [c.Forget((S1,))]
    assert worker.decode.heard == []
    assert worker.scheduler.take() == [m.SequenceEnded(R1, usage, None), m.PrefillTurnEnded(1, 0.5)]


def test_a_cancel_for_a_sequence_that_went_on_follows_it() -> None:
    worker = Prefilling()
    worker.start("r1", (1,))
    worker.decode.take()
    cancel = m.Cancel(R1, CancelCause.DEADLINE)
    worker.actor.receive(cancel)
    assert worker.decode.take() == [cancel]
    assert worker.client.last_words() == []


class Decoding:
    def __init__(self, *, keep_kv: bool = False, capacity: int = 64) -> None:
        self.engine = RecordingEngine()
        self.scheduler = Recorder[m.SequenceSpoke | m.SequenceEnded | m.DecodeTurnEnded]()
        self.client = Client(capacity=capacity)
        self.actor = DecodeWorker(engine=self.engine, reply=no_reply, scheduler=self.scheduler, keep_kv=keep_kv)

    def join(self, *, output: tuple[int, ...] = (), report_every: int = 1) -> None:
        request = self.client.request("r1", report_every=report_every)
        self.actor.receive(m.JoinDecode(sequence(request, output=output)))

    def answer(self, *ids: int, finish: FinishReason | None = None, at: float = 1.0, number: int = 1) -> None:
        row = c.DecodedRow(SequenceId(number), tuple(map(TokenOutput, ids)), finish)
        self.actor.receive(m.EngineReplied(c.Decoded((row,), 1, 0.5), at))


def decoded(*ids: int) -> m.TokensDecoded:
    return m.TokensDecoded(R1, tuple(map(TokenOutput, ids)))


def test_a_joined_row_is_stepped_and_its_tokens_go_to_the_client() -> None:
    worker = Decoding()
    worker.join()
    (join,) = worker.engine.take()
    assert isinstance(join, c.Join)
    assert join.rows[0].history == (1, 2, 3)
    worker.actor.receive(m.GrantDecode(1))
    assert worker.engine.take() == [c.Decode(1)]
    worker.answer(11)
    assert worker.client.heard == [decoded(11)]
    assert worker.scheduler.take() == [m.SequenceSpoke(R1), m.DecodeTurnEnded(1, 0.5)]
    worker.answer(12)
    assert worker.scheduler.take() == [m.DecodeTurnEnded(1, 0.5)]


def test_a_finished_row_says_its_last_word_with_the_tokens_not_yet_sent() -> None:
    worker = Decoding(capacity=1)
    worker.join()
    for token in (11, 12):
        worker.answer(token)
    worker.answer(13, finish=FinishReason.STOP)
    usage = m.Usage(3, 0, 3)
    finished = m.Finished(R1, (TokenOutput(12), TokenOutput(13)), FinishReason.STOP, usage)
    assert worker.client.heard == [decoded(11), finished]
    assert worker.scheduler.take()[-2:] == [m.SequenceEnded(R1, usage, None), m.DecodeTurnEnded(1, 0.5)]


def test_what_a_slow_client_has_no_room_for_waits_and_is_sent_together() -> None:
    worker = Decoding(capacity=1)
    worker.join()
    for token in (11, 12, 13):
        worker.answer(token)
    assert worker.client.heard == [decoded(11)]
    worker.client.sinks["r1"].took()
    worker.answer(14)
    assert worker.client.heard == [decoded(11), decoded(12, 13, 14)]
    assert worker.client.sinks["r1"].delivered == [11, 12, 13, 14]


def test_tokens_are_sent_in_the_numbers_asked_for() -> None:
    worker = Decoding()
    worker.join(report_every=3)
    for token in (11, 12, 13, 14):
        worker.answer(token)
    assert worker.client.heard == [decoded(11, 12, 13)]


def test_usage_counts_the_output_of_earlier_lives() -> None:
    worker = Decoding()
    worker.join(output=(21, 22))
    worker.answer(23, finish=FinishReason.LENGTH)
    (word,) = worker.client.last_words()
    assert isinstance(word, m.Finished)
    assert word.usage == m.Usage(3, 0, 3)


def test_a_kept_cache_holds_all_but_the_last_token() -> None:
    worker = Decoding(keep_kv=True)
    worker.join()
    worker.engine.take()
    worker.answer(11)
    worker.answer(12, finish=FinishReason.LENGTH)
    assert worker.engine.take() == [c.StoreKv(S1, KvHandle(1))]
    (ended,) = [each for each in worker.scheduler.heard if isinstance(each, m.SequenceEnded)]
    assert ended.kept == m.StoredKv(KvHandle(1), (1, 2, 3, 11))


def test_a_cancelled_row_is_forgotten_and_late_tokens_are_ignored() -> None:
    worker = Decoding(keep_kv=True)
    worker.join()
    worker.answer(11)
    worker.engine.take()
    worker.scheduler.take()
    worker.actor.receive(m.Cancel(R1, CancelCause.CLIENT_LEFT))
    worker.actor.receive(m.Cancel(R1, CancelCause.CLIENT_LEFT))
    assert worker.engine.take() == [c.Forget((S1,))]
    worker.answer(12, finish=FinishReason.LENGTH)
    assert worker.client.last_words() == [m.Cancelled(R1, CancelCause.CLIENT_LEFT, m.Usage(3, 0, 1))]
    assert worker.scheduler.take() == [
        m.SequenceEnded(R1, m.Usage(3, 0, 1), None),
        m.DecodeTurnEnded(1, 0.5),
    ]


def test_a_row_that_made_the_engine_raise_fails_alone() -> None:
    worker = Decoding()
    worker.join()
    worker.actor.receive(m.JoinDecode(sequence(worker.client.request("r2"), 2)))
    good = c.DecodedRow(S1, (TokenOutput(11),), None)
    result = c.Decoded((good,), 1, 0.5, failed=(c.SequenceFailed(SequenceId(2), "planted"),))
    worker.scheduler.take()
    worker.actor.receive(m.EngineReplied(result, at=1.0))
    assert worker.client.last_words() == [m.Failed(RequestId("r2"), "planted")]
    ended = m.SequenceEnded(RequestId("r2"), m.Usage(3, 0, 0), None)
    assert worker.scheduler.take() == [m.SequenceSpoke(R1), ended, m.DecodeTurnEnded(1, 0.5)]


def test_a_grant_without_rows_is_given_back_at_once() -> None:
    worker = Decoding()
    worker.actor.receive(m.GrantDecode(1))
    assert worker.engine.take() == []
    assert worker.scheduler.take() == [m.DecodeTurnEnded(0, 0.0)]


def test_speed_is_counted_from_the_first_token_on() -> None:
    worker = Decoding()
    worker.join()
    for at in (10.0, 10.5, 11.0):
        worker.answer(11, at=at)
    (row,) = worker.actor.snapshot().sequences
    assert row.ttft_s == 10.0
    assert row.tokens_per_second == 2.0
