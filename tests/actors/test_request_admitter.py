"""RequestAdmitter: the door and the ledger."""

import pytest

from actors import messages as m
from actors.request_admitter import RequestAdmitter
from runtime.types import CancelCause, FinishReason, MemoryAction, PressureLevel, RejectReason, RequestId, TokenOutput
from tests.fakes import FACTS, Client, Recorder

R1 = RequestId("r1")
USAGE = m.Usage(3, 0, 5)


class Door:
    """An admitter between a recording scheduler and a remembering client."""

    def __init__(self, credits: int = 10, action: MemoryAction = MemoryAction.WARN) -> None:
        self.scheduler = Recorder[m.Enqueue | m.Cancel]()
        self.client = Client()
        self.actor = RequestAdmitter(scheduler=self.scheduler, credits=credits, memory_action=action, stall_s=60.0)

    def open(self, epoch: int = 1) -> None:
        self.actor.receive(m.EngineRoomOpened(epoch, FACTS))

    def admit(self, *requests: m.Request) -> None:
        self.actor.receive(m.Admit(requests))


def test_an_accepted_request_is_told_so_and_goes_in_line() -> None:
    door = Door()
    door.open(epoch=7)
    request = door.client.request()
    door.admit(request)
    assert door.client.heard == [m.Accepted(R1)]
    assert door.scheduler.heard == [m.Enqueue(7, request, ())]


def test_before_the_engine_room_opens_requests_wait_at_the_door() -> None:
    door = Door()
    request = door.client.request()
    door.admit(request)
    assert door.client.heard == [m.Accepted(R1)]
    assert door.scheduler.heard == []
    door.open(epoch=1)
    assert door.scheduler.heard == [m.Enqueue(1, request, ())]


def test_beyond_the_credits_a_request_is_rejected_and_leaves_no_trace() -> None:
    door = Door(credits=1)
    door.open()
    door.admit(door.client.request("r1"))
    door.admit(door.client.request("r2"))
    assert door.client.last_words() == [m.Rejected(RequestId("r2"), RejectReason.QUEUE_FULL, 1.0)]
    assert door.actor.snapshot().open_requests == (R1,)
    door.actor.receive(m.RequestClosed(R1, USAGE))
    door.admit(door.client.request("r3"))
    assert door.actor.snapshot().open_requests == (RequestId("r3"),)


def test_pressure_at_the_limit_halves_the_output_of_new_requests_only_while_it_lasts() -> None:
    door = Door(action=MemoryAction.REDUCE_CONTEXT)
    door.open()
    for level in (PressureLevel.LIMIT, PressureLevel.NORMAL):
        door.actor.receive(m.PressureMeasured(level))
        door.admit(door.client.request(f"r-{level}", max_tokens=100))
    granted = [each.request.sampling.max_tokens for each in door.scheduler.heard if isinstance(each, m.Enqueue)]
    assert granted == [50, 100]


def test_a_cancel_is_passed_on_once_and_only_for_open_requests() -> None:
    door = Door()
    door.open()
    door.admit(door.client.request())
    door.scheduler.take()
    for request_id in (R1, R1, RequestId("unknown")):
        door.actor.receive(m.Cancel(request_id, CancelCause.CLIENT_LEFT))
    assert door.scheduler.heard == [m.Cancel(R1, CancelCause.CLIENT_LEFT)]


def test_while_the_engine_room_is_closed_the_door_itself_ends_what_is_cancelled() -> None:
    door = Door()
    door.admit(door.client.request())
    door.actor.receive(m.Cancel(R1, CancelCause.DEADLINE))
    assert door.client.last_words() == [m.Cancelled(R1, CancelCause.DEADLINE, m.Usage(3, 0, 0))]
    door.open()
    assert door.scheduler.heard == []


def test_after_a_death_a_request_resumes_behind_its_delivered_tokens() -> None:
    door = Door()
    door.open(1)
    request = door.client.request()
    door.admit(request)
    door.actor.receive(m.RequestStaged(R1))
    request.sink.offer(m.TokensDecoded(R1, (TokenOutput(11), TokenOutput(12))))
    door.scheduler.take()
    door.actor.receive(m.EngineRoomClosed("planted"))
    door.open(2)
    assert door.scheduler.heard == [m.Enqueue(2, request, (11, 12))]


def die(door: Door, epoch: int, *, staged: bool) -> None:
    if staged:
        door.actor.receive(m.RequestStaged(R1))
    door.actor.receive(m.EngineRoomClosed("planted"))
    door.open(epoch)


def test_on_stage_and_no_further_in_two_deaths_in_a_row_a_request_fails() -> None:
    door = Door()
    door.open(1)
    door.admit(door.client.request())
    die(door, 2, staged=True)
    assert door.client.last_words() == []
    die(door, 3, staged=True)
    assert [type(word) for word in door.client.last_words()] == [m.Failed]
    assert door.actor.snapshot().open_requests == ()


def test_after_one_such_death_it_is_suspect() -> None:
    door = Door()
    door.open(1)
    request = door.client.request()
    door.admit(request)
    door.scheduler.take()
    die(door, 2, staged=True)
    assert door.scheduler.take() == [m.Enqueue(2, request, (), suspect=True)]


def test_a_request_that_got_further_is_not_blamed() -> None:
    door = Door()
    door.open(1)
    request = door.client.request()
    door.admit(request)
    for epoch in range(2, 8):
        door.actor.receive(m.RequestStaged(R1))
        request.sink.offer(m.TokensDecoded(R1, (TokenOutput(10 + epoch),)))
        door.actor.receive(m.EngineRoomClosed("planted"))
        door.scheduler.take()
        door.open(epoch)
        assert door.scheduler.take() == [m.Enqueue(epoch, request, tuple(range(12, 11 + epoch)), suspect=False)]


def test_a_death_that_a_request_spends_in_line_breaks_the_row() -> None:
    door = Door()
    door.open(1)
    door.admit(door.client.request())
    for epoch, staged in ((2, True), (3, False), (4, True)):
        die(door, epoch, staged=staged)
    assert door.client.last_words() == []


def test_a_death_that_a_request_spends_back_in_line_breaks_the_row_too() -> None:
    door = Door()
    door.open(1)
    door.admit(door.client.request())
    die(door, 2, staged=True)
    door.actor.receive(m.RequestStaged(R1))
    door.actor.receive(m.RequestPreempted(R1))
    door.scheduler.take()
    die(door, 3, staged=False)
    (again,) = door.scheduler.take()
    assert isinstance(again, m.Enqueue)
    assert not again.suspect
    die(door, 4, staged=True)
    assert door.client.last_words() == []


def test_a_request_that_had_its_last_word_is_closed_not_resumed_after_a_death() -> None:
    door = Door()
    door.open(1)
    request = door.client.request()
    door.admit(request)
    request.sink.last_word(m.Finished(R1, (), FinishReason.LENGTH, USAGE))
    door.scheduler.take()
    die(door, 2, staged=True)
    assert door.scheduler.heard == []
    assert door.actor.snapshot().open_requests == ()
    assert len(door.client.last_words()) == 1


def test_a_request_cancelled_when_the_engine_dies_gets_its_last_word_from_the_door() -> None:
    door = Door()
    door.open(1)
    door.admit(door.client.request())
    door.actor.receive(m.Cancel(R1, CancelCause.CLIENT_LEFT))
    door.actor.receive(m.EngineRoomClosed("planted"))
    assert [type(word) for word in door.client.last_words()] == [m.Cancelled]


@pytest.mark.parametrize(
    ("now", "cause"), [(99.0, None), (100.0, CancelCause.DEADLINE)], ids=["before", "at the deadline"]
)
def test_a_request_ends_at_its_deadline(now: float, cause: CancelCause | None) -> None:
    door = Door()
    door.open()
    door.admit(door.client.request(deadline=100.0, arrived_at=90.0))
    door.scheduler.take()
    door.actor.receive(m.Tick(now))
    assert door.scheduler.heard == ([m.Cancel(R1, cause)] if cause else [])


def test_a_client_that_reads_nothing_for_a_minute_is_cancelled_as_stalled() -> None:
    door = Door()
    door.open()
    request = door.client.request()
    door.admit(request)
    door.scheduler.take()
    for now in (0.0, 59.0):
        door.actor.receive(m.Tick(now))
    request.sink.took()
    request.sink.offer(m.PrefillAdvanced(R1, 1, 2))
    for now in (60.0, 119.0):
        door.actor.receive(m.Tick(now))
    assert door.scheduler.heard == []
    door.actor.receive(m.Tick(120.0))
    assert door.scheduler.heard == [m.Cancel(R1, CancelCause.STALLED)]


def test_totals_are_those_of_closed_requests() -> None:
    door = Door()
    door.open()
    door.admit(door.client.request("r1"), door.client.request("r2"))
    door.actor.receive(m.RequestClosed(R1, USAGE))
    door.actor.receive(m.RequestClosed(RequestId("unknown"), USAGE))
    shown = door.actor.snapshot()
    assert (shown.requests_closed, shown.prompt_tokens, shown.completion_tokens, shown.peak_open) == (1, 3, 5, 2)


def test_a_drain_tells_when_the_last_one_is_out() -> None:
    door = Door()
    door.open()
    door.admit(door.client.request())
    told: list[bool] = []
    door.actor.receive(m.Drain(lambda: told.append(True)))
    assert not told
    door.actor.receive(m.RequestClosed(R1, USAGE))
    assert told
