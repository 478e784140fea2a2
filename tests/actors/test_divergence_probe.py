"""DivergenceProbe: what it has computed, what it makes of the answers, and whom it tells."""

from dataclasses import replace

import pytest

from actors import messages as m
from actors.divergence_probe import SALT, DivergenceProbe
from actors.policies.probing import MOST_CANDIDATES
from actors.snapshots import Tally
from runtime.types import (
    CancelCause,
    DivergenceCause,
    FinishReason,
    ModelFacts,
    RequestId,
    RuntimeMode,
    Sampling,
    TokenOutput,
)
from tests.fakes import FACTS, Recorder, fake_output

PROMPTS = ((1, 2, 3), (4, 5))
COMPANY, CACHE, TRAFFIC = DivergenceCause.COMPANY, DivergenceCause.CACHE, DivergenceCause.TRAFFIC


class Probing:
    """A probe whose requests a test answers; the room is open and the prompts are known."""

    def __init__(self, *, facts: ModelFacts = FACTS, mode: RuntimeMode = RuntimeMode.AUTO, seats: int = 8) -> None:
        self.scheduler = Recorder[m.Enqueue | m.Cancel | m.DivergenceMeasured]()
        self.mail = Recorder[m.ProbeReplied]()
        self.actor = DivergenceProbe(
            name="probe",
            mailbox=self.mail,
            scheduler=self.scheduler,
            mode=mode,
            max_concurrency=seats,
            interval_s=100.0,
            threshold=0.95,
        )
        self.actor.receive(m.EngineRoomOpened(1, facts))
        self.actor.receive(m.ProbePrompts(PROMPTS))

    def asked(self) -> list[m.Request]:
        """What was to be computed since last asked."""
        told = [each.request for each in self.scheduler.heard if isinstance(each, m.Enqueue)]
        self.scheduler.heard = [each for each in self.scheduler.heard if not isinstance(each, m.Enqueue)]
        return told

    def tick(self, now: float) -> list[m.Request]:
        self.actor.receive(m.Tick(now))
        return self.asked()

    def finish(
        self, request: m.Request, *, wrong: tuple[int, ...] = (), cached: int = 0, logprob: float = -1.0
    ) -> None:
        """It is answered as a FakeEngine would, but with something else in places `wrong`."""
        ids = fake_output(request.prompt_ids, request.sampling.max_tokens)
        tokens = [TokenOutput(each + (place in wrong), logprob) for place, each in enumerate(ids)]
        usage = m.Usage(len(request.prompt_ids), cached, len(tokens))
        request.sink.last_word(m.Finished(request.request_id, tuple(tokens), FinishReason.LENGTH, usage))
        self.hear()

    def hear(self) -> None:
        for word in self.mail.take():
            self.actor.receive(word)

    def round(self, now: float, *, wrong: dict[str, tuple[int, ...]] | None = None) -> None:
        """A whole round, in which the rows of that kind say something else in those places."""
        requests = self.tick(now)
        while requests:
            for request in requests:
                self.finish(request, wrong=(wrong or {}).get(kind(request), ()), cached=0 if request.fresh else 2)
            requests = self.asked()

    def measured(self) -> list[bool]:
        return [each.diverged for each in self.scheduler.take() if isinstance(each, m.DivergenceMeasured)]


def kind(request: m.Request) -> str:
    if not request.fresh:
        return "cached"
    return ("alone" if request.leaves_kv else "traffic") if request.apart else "company"


def test_a_round_is_three_passes_of_background_requests() -> None:
    probing = Probing()
    alone = probing.tick(5.0)
    assert [(kind(each), each.prompt_ids) for each in alone] == [("alone", prompt) for prompt in PROMPTS]
    for each in alone:
        assert (each.background, each.cache_salt, each.arrived_at) == (True, SALT, 5.0)
        assert each.sampling == Sampling(max_tokens=32, temperature=0.0, top_logprobs=0)
        assert not each.sink.offer(m.TokensDecoded(each.request_id, (TokenOutput(1),)))  # Only the last word comes.
    probing.finish(alone[0])
    assert probing.asked() == []
    probing.finish(alone[1])
    cached = probing.asked()
    assert [(kind(each), each.prompt_ids) for each in cached] == [("cached", prompt) for prompt in PROMPTS]
    for each in cached:
        probing.finish(each, cached=2)
    company = probing.asked()
    assert [kind(each) for each in company] == ["company"] * 8
    assert sorted(each.prompt_ids for each in company) == sorted(PROMPTS * 4)
    assert probing.actor.snapshot().under_way
    for each in company:
        probing.finish(each, logprob=-1.25)
    shown = probing.actor.snapshot()
    assert (shown.rounds, shown.under_way, shown.diverged, shown.ended_at) == (1, False, False, 5.0)
    assert shown.tallies == {COMPANY: Tally(2, 256, 1.0, None, 0.25), CACHE: Tally(2, 64, 1.0, None, 0.0)}
    assert probing.measured() == [False]
    names = [each.request_id for each in alone + cached + company]
    assert len(set(names)) == len(names)


def test_rounds_begin_an_interval_apart() -> None:
    probing = Probing()
    probing.round(5.0)
    assert probing.tick(104.0) == []
    assert len(probing.tick(105.0)) == 2


def test_no_round_begins_without_prompts_or_an_engine() -> None:
    probing = Probing()
    probing.actor.receive(m.ProbePrompts(()))
    assert probing.tick(0.0) == []
    closed = Probing()
    closed.actor._room = None
    assert closed.tick(0.0) == []


def test_what_does_not_fit_into_the_context_is_left_out() -> None:
    probing = Probing(facts=replace(FACTS, context_tokens=34))
    assert [each.prompt_ids for each in probing.tick(0.0)] == [(4, 5)]


def test_a_round_that_compares_nothing_says_nothing_and_is_given_up() -> None:
    probing = Probing(facts=replace(FACTS, context_tokens=20))
    assert probing.tick(0.0) == []
    assert probing.measured() == []
    assert (probing.actor.snapshot().rounds, probing.actor.snapshot().given_up) == (0, 1)


@pytest.mark.parametrize("who", ["company", "traffic"])
def test_answers_that_differ_in_company_are_a_divergence_until_they_do_not(
    who: str, caplog: pytest.LogCaptureFixture
) -> None:
    probing = Probing()
    with caplog.at_level("INFO", logger="troupe.divergence_probe"):
        for now, wrong in ((0.0, (7, 9)), (100.0, (7, 9)), (200.0, ())):
            probing.actor.receive(m.ProbeCandidate((1, 2), greedy(), tuple(fake_output((1, 2), 32))))
            probing.round(now, wrong={who: wrong})
    assert probing.measured() == [True, True, False]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "agree in 0.9375 of " in caplog.messages[0]
    assert "the first difference is at place 7" in caplog.messages[0]
    assert "difference is" not in caplog.messages[1]


def test_what_is_above_the_threshold_is_told_and_no_divergence() -> None:
    probing = Probing()
    probing.round(0.0, wrong={"company": (31,)})
    assert probing.actor.snapshot().tallies[COMPANY] == Tally(2, 256, 31 / 32, 31, 0.0)
    assert probing.measured() == [False]


def test_what_differs_from_the_cache_is_said_but_running_alone_would_not_help(caplog: pytest.LogCaptureFixture) -> None:
    probing = Probing()
    probing.round(0.0, wrong={"cached": (0, 1, 2)})
    assert probing.measured() == [False]
    assert not probing.actor.snapshot().diverged
    assert probing.actor.snapshot().tallies[CACHE].first_difference == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_what_the_cache_served_nothing_of_is_not_compared() -> None:
    probing = Probing()
    requests = probing.tick(0.0)
    while requests:
        for request in requests:
            probing.finish(request, cached=2 if request.prompt_ids == (4, 5) else 0)
        requests = probing.asked()
    assert probing.actor.snapshot().tallies[CACHE].prompts == 1


@pytest.mark.parametrize(
    "probing",
    [
        lambda: Probing(mode=RuntimeMode.SIMPLE),
        lambda: Probing(seats=1),
        lambda: Probing(facts=replace(FACTS, batchable=False)),
    ],
)
def test_where_there_is_never_company_it_is_left_out_and_this_is_said(
    probing: type[Probing], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="troupe.divergence_probe"):
        alone = probing()
    assert caplog.messages == ["answers in company are not compared: requests run one at a time"]
    alone.round(0.0)
    assert set(alone.actor.snapshot().tallies) == {CACHE}


# --- the traffic ---


def greedy(max_tokens: int = 1000) -> Sampling:
    return Sampling(max_tokens=max_tokens, temperature=0.0, stop_ids=frozenset({2}))


def test_a_candidate_is_computed_again_alone_as_far_as_it_came() -> None:
    probing = Probing()
    output = tuple(fake_output((7, 8), 300))
    probing.actor.receive(m.ProbeCandidate((7, 8), greedy(), output[:5]))
    probing.actor.receive(m.ProbeCandidate((7, 8), greedy(), output))
    short, long = [each for each in probing.tick(0.0) if kind(each) == "traffic"]
    assert (short.prompt_ids, short.sampling) == ((7, 8), greedy(5))
    assert (short.apart, short.fresh, short.background, short.leaves_kv) == (True, True, True, False)
    assert long.sampling == greedy(128)
    probing.finish(short)
    probing.finish(long)
    for each in probing.scheduler.take():
        assert isinstance(each, m.Enqueue)
        if not each.request.sink.ended:
            probing.finish(each.request)
    probing.round(0.0)


def test_candidates_are_told_by_what_the_client_was_told() -> None:
    probing = Probing()
    output = fake_output((7, 8), 10)
    probing.actor.receive(m.ProbeCandidate((7, 8), greedy(), (*output[:8], 1, 1)))
    probing.round(0.0)
    assert probing.actor.snapshot().tallies[TRAFFIC] == Tally(1, 10, 0.8, 8, None)
    probing.round(100.0)  # Without a candidate nothing of the kind is measured, and what was is still shown.
    assert probing.actor.snapshot().tallies[TRAFFIC].prompts == 1
    assert probing.measured() == [True, False]


def test_of_many_candidates_the_last_few_wait() -> None:
    probing = Probing()
    for number in range(20):
        probing.actor.receive(m.ProbeCandidate((7, number), greedy(), (11,)))
    sampled = [each.prompt_ids[1] for each in probing.tick(0.0) if kind(each) == "traffic"]
    assert sampled == list(range(20 - MOST_CANDIDATES, 20))


# --- trouble ---


def test_a_round_that_takes_too_long_is_given_up_and_the_next_one_begins() -> None:
    probing = Probing()
    requests = probing.tick(0.0)
    probing.finish(requests[0])
    assert probing.tick(100.0) == []
    assert probing.tick(100.5) == []
    assert probing.scheduler.take() == [m.Cancel(requests[1].request_id, CancelCause.OPERATOR)]
    shown = probing.actor.snapshot()
    assert (shown.rounds, shown.given_up, shown.under_way, shown.ended_at) == (0, 1, False, None)
    again = probing.tick(101.0)
    assert len(again) == 2
    probing.finish(requests[1])  # Too late: it is not asked for any more.
    assert probing.asked() == []


@pytest.mark.parametrize("failed", [True, False])
def test_a_request_that_fails_or_is_ended_gives_the_round_up(failed: bool) -> None:
    probing = Probing()
    first, second = probing.tick(0.0)
    name = first.request_id
    ended = m.Cancelled(name, CancelCause.OPERATOR, m.Usage(3, 0, 0))
    first.sink.last_word(m.Failed(name, "out of memory") if failed else ended)
    probing.hear()
    assert m.Cancel(second.request_id, CancelCause.OPERATOR) in probing.scheduler.take()
    assert probing.actor.snapshot().given_up == 1


def test_a_new_life_of_the_engine_room_is_told_what_is_known_and_begins_anew() -> None:
    probing = Probing()
    probing.round(0.0, wrong={"company": tuple(range(32))})
    lost = probing.tick(100.0)
    assert probing.measured() == [True]
    probing.actor.receive(m.EngineRoomOpened(2, FACTS))
    assert probing.scheduler.take()[-1] == m.DivergenceMeasured(True)
    assert probing.actor.snapshot().given_up == 1
    probing.finish(lost[0])
    assert probing.tick(150.0) == []
    probing.actor.receive(m.Tick(200.0))
    assert {each.epoch for each in probing.scheduler.take() if isinstance(each, m.Enqueue)} == {2}


def test_an_opening_that_is_said_twice_gives_nothing_up() -> None:
    probing = Probing()
    probing.tick(0.0)
    probing.actor.receive(m.EngineRoomOpened(1, FACTS))
    assert probing.actor.snapshot().under_way


def test_what_is_said_of_others_is_ignored() -> None:
    probing = Probing()
    probing.tick(0.0)
    probing.actor.receive(m.ProbeReplied(m.Failed(RequestId("probe-of-another-life-1"), "gone")))
    assert probing.actor.snapshot().under_way
