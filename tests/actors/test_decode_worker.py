"""DecodeWorker: the running batch, and how its tokens get to the clients."""

from dataclasses import replace

import pytest

from actors import messages as m
from actors.decode_worker import DecodeWorker
from runtime.engine import commands as c
from runtime.types import CancelCause, FinishReason, RequestId, Sampling, SequenceId, TokenOutput
from tests.actors.prefilling import R1, S1, sequence
from tests.fakes import Client, Recorder, RecordingEngine, no_reply


class Decoding:
    def __init__(self, *, keep_kv: bool = False, capacity: int = 64, sample_every: int = 0) -> None:
        self.engine = RecordingEngine()
        self.scheduler = Recorder[m.SequenceSpoke | m.SequenceEnded | m.SequencePreempted | m.DecodeTurnEnded]()
        self.cache_manager = Recorder[m.KvGrew]()
        self.probe = Recorder[m.ProbeCandidate]()
        self.client = Client(capacity=capacity)
        self.actor = DecodeWorker(
            engine=self.engine,
            reply=no_reply,
            scheduler=self.scheduler,
            cache_manager=self.cache_manager,
            divergence_probe=self.probe,
            keep_kv=keep_kv,
            sample_every=sample_every,
        )

    def join(
        self, prompt: tuple[int, ...] = (1, 2, 3), *, output: tuple[int, ...] = (), report_every: int = 1
    ) -> m.Sequence:
        joined = sequence(self.client.request("r1", prompt, report_every=report_every), output=output)
        self.actor.receive(m.JoinDecode(joined))
        return joined

    def answer(
        self, *ids: int, finish: FinishReason | None = None, kv_tokens: int = 0, at: float = 1.0, number: int = 1
    ) -> None:
        row = c.DecodedRow(SequenceId(number), tuple(map(TokenOutput, ids)), finish, kv_tokens)
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
    assert worker.scheduler.take()[-2:] == [m.SequenceEnded(R1, S1, usage, ()), m.DecodeTurnEnded(1, 0.5)]


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


@pytest.mark.parametrize(("keep_kv", "kv_tokens", "held"), [(True, 4, (1, 2, 3, 11)), (False, 0, ())])
def test_a_finished_row_held_what_the_engine_says_that_it_kept(
    keep_kv: bool, kv_tokens: int, held: tuple[int, ...]
) -> None:
    worker = Decoding(keep_kv=keep_kv)
    worker.join()
    (join,) = worker.engine.take()
    assert isinstance(join, c.Join)
    assert join.rows[0].keep_kv is keep_kv
    worker.answer(11)
    worker.answer(12, finish=FinishReason.LENGTH, kv_tokens=kv_tokens)
    (ended,) = [each for each in worker.scheduler.heard if isinstance(each, m.SequenceEnded)]
    assert ended.held == held
    assert worker.engine.take() == []  # CacheManager has it kept and forgotten


def test_a_cancelled_row_held_all_but_its_last_token_and_late_tokens_are_ignored() -> None:
    worker = Decoding(keep_kv=True)
    worker.join()
    worker.answer(11)
    worker.engine.take()
    worker.scheduler.take()
    worker.actor.receive(m.Cancel(R1, CancelCause.CLIENT_LEFT))
    worker.actor.receive(m.Cancel(R1, CancelCause.CLIENT_LEFT))
    assert worker.engine.take() == []
    worker.answer(12, finish=FinishReason.LENGTH)
    assert worker.client.last_words() == [m.Cancelled(R1, CancelCause.CLIENT_LEFT, m.Usage(3, 0, 1))]
    assert worker.scheduler.take() == [
        m.SequenceEnded(R1, S1, m.Usage(3, 0, 1), held=(1, 2, 3)),
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
    ended = m.SequenceEnded(RequestId("r2"), SequenceId(2), m.Usage(3, 0, 0), held=())
    assert worker.scheduler.take() == [m.SequenceSpoke(R1), ended, m.DecodeTurnEnded(1, 0.5)]


def test_a_grant_without_rows_is_given_back_at_once() -> None:
    worker = Decoding()
    worker.actor.receive(m.GrantDecode(1))
    assert worker.engine.take() == []
    assert worker.scheduler.take() == [m.DecodeTurnEnded(0, 0.0)]


def test_a_row_that_makes_the_engine_raise_leaves_nothing_to_keep() -> None:
    worker = Decoding(keep_kv=True)
    worker.join()
    worker.answer(11)
    worker.scheduler.take()
    result = c.Decoded((), 1, 0.5, failed=(c.SequenceFailed(S1, "planted"),))
    worker.actor.receive(m.EngineReplied(result, at=1.0))
    assert worker.scheduler.take()[0] == m.SequenceEnded(R1, S1, m.Usage(3, 0, 1), held=())


def test_growth_is_told_once_per_256_tokens_the_next_one_counted() -> None:
    worker = Decoding()
    worker.join(tuple(range(250)))
    told = []
    for token in range(300):
        worker.answer(token)
        told += [(250 + token + 1, word) for word in worker.cache_manager.take()]
    assert told == [(256, m.KvGrew(R1, 257)), (512, m.KvGrew(R1, 513))]


def test_a_row_that_ends_as_it_grows_needs_no_more_room() -> None:
    worker = Decoding()
    worker.join(tuple(range(255)))
    worker.answer(11, finish=FinishReason.LENGTH)
    assert worker.cache_manager.take() == []


def test_a_row_that_goes_back_in_line_takes_along_what_its_client_has_not_taken() -> None:
    worker = Decoding(capacity=1)
    joined = worker.join()
    for token in (11, 12, 13):
        worker.answer(token)
    worker.scheduler.take()
    worker.actor.receive(m.Preempt(R1))
    unsent = (TokenOutput(12), TokenOutput(13))
    assert worker.scheduler.take() == [m.SequencePreempted(joined, (11, 12, 13), unsent, (1, 2, 3, 11, 12))]
    assert worker.client.last_words() == []
    worker.answer(14)
    assert worker.scheduler.take() == [m.DecodeTurnEnded(1, 0.5)]
    assert worker.client.heard == [decoded(11)]


def test_a_row_in_its_second_run_counts_and_sends_what_it_brought_along() -> None:
    worker = Decoding()
    joined = sequence(worker.client.request("r1"), output=(21, 22))
    worker.actor.receive(m.JoinDecode(replace(joined, unsent=(TokenOutput(22),))))
    worker.answer(23)
    assert worker.client.heard == [decoded(22, 23)]
    worker.actor.receive(m.Preempt(R1))
    (preempted,) = [each for each in worker.scheduler.heard if isinstance(each, m.SequencePreempted)]
    assert (preempted.output_ids, preempted.unsent, preempted.held) == ((21, 22, 23), (), (1, 2, 3, 21, 22))


def test_a_row_that_goes_back_before_its_first_token_holds_its_prompt() -> None:
    worker = Decoding()
    joined = worker.join()
    worker.actor.receive(m.Preempt(R1))
    assert worker.scheduler.take() == [m.SequencePreempted(joined, (), (), (1, 2))]


def test_a_word_to_go_back_for_a_row_that_has_ended_is_ignored() -> None:
    worker = Decoding()
    worker.actor.receive(m.Preempt(R1))
    assert worker.scheduler.take() == []


def test_speed_is_counted_from_the_first_token_on() -> None:
    worker = Decoding()
    worker.join()
    for at in (10.0, 10.5, 11.0):
        worker.answer(11, at=at)
    (row,) = worker.actor.snapshot().sequences
    assert row.ttft_s == 10.0
    assert row.tokens_per_second == 2.0


def test_a_second_run_does_not_know_of_the_first_token() -> None:
    worker = Decoding()
    worker.join(output=(21,))
    worker.answer(22)
    (row,) = worker.actor.snapshot().sequences
    assert row.ttft_s is None
    assert row.generated_tokens == 2


@pytest.mark.parametrize(
    ("sampling", "background", "sampled"),
    [
        (Sampling(5, temperature=0.0), False, True),
        (Sampling(5, temperature=1.0, top_k=1), False, True),
        (Sampling(5, temperature=0.7), False, False),
        (Sampling(5, temperature=0.0, grammar="start: A"), False, False),
        (Sampling(5, temperature=0.0), True, False),
    ],
)
def test_answers_that_can_be_computed_again_are_told_to_the_probe(
    sampling: Sampling, background: bool, sampled: bool
) -> None:
    worker = Decoding(sample_every=1)
    request = replace(worker.client.request("r1", background=background), sampling=sampling)
    worker.actor.receive(m.JoinDecode(sequence(request, output=(11,))))
    worker.answer(12)
    assert worker.probe.take() == []
    worker.answer(13, finish=FinishReason.STOP)
    candidate = m.ProbeCandidate((1, 2, 3), request.sampling, (11, 12, 13))
    assert worker.probe.take() == ([candidate] if sampled else [])


@pytest.mark.parametrize(("sample_every", "told"), [(0, 0), (1, 7), (3, 2)])
def test_one_in_so_many_is_sampled(sample_every: int, told: int) -> None:
    worker = Decoding(sample_every=sample_every)
    for _ in range(7):
        worker.join()
        worker.answer(11, finish=FinishReason.LENGTH)
    assert len(worker.probe.heard) == told


def test_a_request_that_is_cancelled_is_no_sample() -> None:
    worker = Decoding(sample_every=1)
    worker.join()
    worker.answer(11)
    worker.actor.receive(m.Cancel(R1, CancelCause.STOP_STRING))
    assert worker.probe.heard == []


def test_the_background_is_neither_shown_nor_counted_and_runs_apart_if_it_is_to() -> None:
    worker = Decoding(keep_kv=True)
    request = replace(worker.client.request("r1", background=True, leaves_kv=False), apart=True)
    worker.actor.receive(m.JoinDecode(sequence(request)))
    (join,) = worker.engine.take()
    assert isinstance(join, c.Join)
    assert (join.rows[0].apart, join.rows[0].keep_kv) == (True, False)
    worker.answer(11)
    shown = worker.actor.snapshot()
    assert (shown.sequences, shown.produced_tokens) == ((), 0)


def test_produced_tokens_are_counted_past_their_sequences() -> None:
    worker = Decoding()
    worker.join(output=(11,))
    worker.answer(12, 13)
    worker.answer(14, finish=FinishReason.STOP)
    assert worker.actor.snapshot().produced_tokens == 3
