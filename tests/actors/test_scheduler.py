"""Scheduler: the line, the stage and the turns."""

from actors import messages as m
from actors.scheduler import Scheduler
from runtime.types import CancelCause, HitType, KvHandle, RequestId
from tests.fakes import Client, Recorder

USAGE = m.Usage(3, 0, 5)


class Stage:
    """A scheduler among recording neighbours."""

    def __init__(self, max_concurrency: int = 2) -> None:
        self.admitter = Recorder[m.RequestStaged | m.RequestClosed]()
        self.cache = Recorder[m.LeaseKv | m.ReleaseKv]()
        self.prefill = Recorder[m.StartPrefill | m.GrantPrefill | m.Cancel]()
        self.decode = Recorder[m.GrantDecode]()
        self.client = Client()
        self.actor = Scheduler(
            epoch=1,
            max_concurrency=max_concurrency,
            prefill_chunk_tokens=64,
            max_gap_ratio=2.0,
            request_admitter=self.admitter,
            cache_manager=self.cache,
            prefill_worker=self.prefill,
            decode_worker=self.decode,
        )

    def enqueue(self, *names: str) -> None:
        for name in names:
            self.actor.receive(m.Enqueue(1, self.client.request(name), ()))

    def lease(self, name: str) -> None:
        self.actor.receive(m.KvLeased(RequestId(name), 0, HitType.MISS, None))

    def stage(self, name: str) -> None:
        self.enqueue(name)
        self.lease(name)

    def cancel(self, name: str) -> None:
        self.actor.receive(m.Cancel(RequestId(name), CancelCause.CLIENT_LEFT))

    def end(self, name: str, kept: m.StoredKv | None = None) -> None:
        self.actor.receive(m.SequenceEnded(RequestId(name), USAGE, kept))


def test_a_request_is_leased_staged_and_granted_a_prefill_turn() -> None:
    stage = Stage()
    stage.enqueue("r1")
    assert stage.cache.take() == [m.LeaseKv(RequestId("r1"), (1, 2, 3), total_tokens=8)]
    stage.actor.receive(m.KvLeased(RequestId("r1"), 2, HitType.PREFIX, KvHandle(9)))
    started, granted = stage.prefill.take()
    assert isinstance(started, m.StartPrefill)
    assert (started.sequence.cached_tokens, started.sequence.kv) == (2, KvHandle(9))
    assert started.sequence.history == (1, 2, 3)
    assert granted == m.GrantPrefill(64)
    assert stage.admitter.take() == [m.RequestStaged(RequestId("r1"))]


def test_delivered_output_is_part_of_the_history_and_not_of_the_total() -> None:
    stage = Stage()
    stage.actor.receive(m.Enqueue(1, stage.client.request("r1"), (11, 12)))
    assert stage.cache.take() == [m.LeaseKv(RequestId("r1"), (1, 2, 3, 11, 12), total_tokens=8)]


def test_a_prompt_to_be_scored_is_leased_without_a_prefix_until_its_scores_were_told() -> None:
    stage = Stage()
    request = stage.client.request("r1", score_prompt=0)
    stage.actor.receive(m.Enqueue(1, request, ()))
    assert stage.cache.take() == [m.LeaseKv(request.request_id, (), total_tokens=8)]
    restarted = Stage()
    request.sink.prompt_scored(m.PromptScored(request.request_id, ()))
    restarted.actor.receive(m.Enqueue(1, request, ()))
    assert restarted.cache.take() == [m.LeaseKv(request.request_id, (1, 2, 3), total_tokens=8)]


def test_a_request_meant_for_an_earlier_life_is_ignored() -> None:
    stage = Stage()
    stage.actor.receive(m.Enqueue(0, stage.client.request("r1"), ()))
    assert stage.cache.heard == []


def test_one_request_is_leased_at_a_time_in_order_of_arrival() -> None:
    stage = Stage(max_concurrency=2)
    stage.enqueue("r1", "r2", "r3")
    asked = []
    for name in ("r1", "r2"):
        asked += stage.cache.take()
        stage.lease(name)
    asked += stage.cache.take()
    assert [wish.request_id for wish in asked] == ["r1", "r2"]
    stage.end("r1")
    (release, lease) = stage.cache.take()
    assert release == m.ReleaseKv(RequestId("r1"), None)
    assert lease.request_id == "r3"


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
    assert [each.request_id for each in stage.cache.take()] == ["r1", "r2"]


def test_two_turns_are_under_way_and_the_kinds_alternate() -> None:
    stage = Stage()
    stage.stage("r1")
    stage.actor.receive(m.SequencePrefilled(RequestId("r1")))
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
    stage.actor.receive(m.SequencePrefilled(RequestId("r1")))
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
    stage.actor.receive(m.SequencePrefilled(RequestId("r1")))
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
    stage.cancel("r1")
    assert len(stage.client.last_words()) == 1
    stage.cache.take()
    stage.lease("r1")
    assert stage.cache.take() == [m.ReleaseKv(RequestId("r1"), None)]
    assert stage.actor.snapshot().prefilling == ()
    stage.lease("r2")
    assert stage.actor.snapshot().prefilling == ("r2",)


def test_a_refusal_for_a_cancelled_request_does_not_touch_the_next_one() -> None:
    stage = Stage()
    stage.enqueue("r1", "r2")
    stage.cancel("r1")
    stage.cache.take()
    stage.actor.receive(m.KvRefused(RequestId("r1")))
    assert stage.cache.take() == []
    stage.lease("r2")
    assert stage.actor.snapshot().prefilling == ("r2",)


def test_a_staged_request_that_is_cancelled_is_left_to_its_worker() -> None:
    stage = Stage()
    stage.stage("r1")
    stage.actor.receive(m.SequencePrefilled(RequestId("r1")))
    stage.prefill.take()
    stage.cancel("r1")
    assert stage.prefill.take() == [m.Cancel(RequestId("r1"), CancelCause.CLIENT_LEFT)]
    assert stage.client.last_words() == []


def test_suspects_come_on_stage_one_at_a_time_each_once_the_last_has_spoken() -> None:
    stage = Stage(max_concurrency=8)
    for name in ("r1", "r2", "r3"):
        stage.actor.receive(m.Enqueue(1, stage.client.request(name), (), suspect=name != "r3"))
    stage.lease("r1")
    assert stage.actor.snapshot().prefilling == ("r1",)
    assert stage.actor.snapshot().waiting == ("r2", "r3")
    stage.actor.receive(m.SequencePrefilled(RequestId("r1")))
    stage.actor.receive(m.SequenceSpoke(RequestId("r1")))
    stage.lease("r2")
    stage.lease("r3")
    assert stage.actor.snapshot().prefilling == ("r2", "r3")


def test_an_ended_sequence_leaves_its_kept_prefix_to_the_cache() -> None:
    stage = Stage()
    stage.stage("r1")
    stage.cache.take()
    stage.admitter.take()
    kept = m.StoredKv(KvHandle(1), (1, 2, 3, 4))
    stage.end("r1", kept)
    stage.end("unknown")
    assert stage.cache.take() == [m.ReleaseKv(RequestId("r1"), kept)]
    assert stage.admitter.take() == [m.RequestClosed(RequestId("r1"), USAGE)]


def test_sequence_ids_of_two_lives_never_meet() -> None:
    def first_id(epoch: int) -> int:
        stage = Stage()
        fresh = Scheduler(
            epoch=epoch,
            max_concurrency=1,
            prefill_chunk_tokens=64,
            max_gap_ratio=2.0,
            request_admitter=stage.admitter,
            cache_manager=stage.cache,
            prefill_worker=stage.prefill,
            decode_worker=stage.decode,
        )
        fresh.receive(m.Enqueue(epoch, stage.client.request("r1"), ()))
        fresh.receive(m.KvLeased(RequestId("r1"), 0, HitType.MISS, None))
        (started,) = [each for each in stage.prefill.heard if isinstance(each, m.StartPrefill)]
        return started.sequence.sequence_id

    assert first_id(2) - first_id(1) >= 1 << 32
