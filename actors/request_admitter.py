"""RequestAdmitter: the door, and the ledger of open requests that outlives every engine."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

from actors import messages as m
from actors.base import Actor, Ref
from actors.policies.admission import granted_tokens, refusal
from actors.policies.after_death import Fate, fate
from actors.policies.overdue import Reading, overdue, read_on
from actors.snapshots import AdmitterSnapshot
from runtime.types import CancelCause, MemoryAction, PressureLevel, RejectReason, RequestId

log = logging.getLogger("troupe.request_admitter")

RETRY_AFTER_S = {RejectReason.QUEUE_FULL: 1.0, RejectReason.MEMORY_PRESSURE: 5.0, RejectReason.DRAINING: 10.0}


@dataclass(slots=True)
class Entry:
    """One open request in the ledger."""

    request: m.Request
    reading: Reading
    staged_with: int | None = None
    """How many tokens had been delivered when it came on stage; None while it waits."""
    blamed: int = 0
    """Deaths of the engine room in a row that saw it on stage and no further than when it came there."""
    cancelled: CancelCause | None = None


class RequestAdmitter(Actor[m.AdmitterWord]):
    """Says who comes in, remembers everyone inside until they are gone, and puts them back in line after an
    engine death. The only one who says no."""

    def __init__(
        self, *, scheduler: Ref[m.Enqueue | m.Cancel], credits: int, memory_action: MemoryAction, stall_s: float
    ) -> None:
        self._scheduler = scheduler
        self._credits = credits
        self._memory_action = memory_action
        self._stall_s = stall_s
        self._ledger: dict[RequestId, Entry] = {}
        self._epoch: int | None = None
        """The life of the engine room that stands open; None while it is closed."""
        self._draining = False
        self._emptied: Callable[[], None] | None = None
        self._pressure = PressureLevel.NORMAL
        self._closed = self._prompt_tokens = self._completion_tokens = self._peak_open = self._rejected = 0

    def receive(self, message: m.AdmitterWord) -> None:
        match message:
            case m.Admit(requests):
                self._admit(requests)
            case m.Cancel(request_id, cause):
                self._cancel(request_id, cause)
            case m.RequestStaged(request_id):
                if entry := self._ledger.get(request_id):
                    entry.staged_with = len(entry.request.sink.delivered)
            case m.RequestPreempted(request_id):
                if entry := self._ledger.get(request_id):
                    entry.staged_with = None
            case m.RequestClosed(request_id, usage):
                self._close(request_id, usage)
            case m.EngineRoomOpened(epoch):
                self._open_room(epoch)
            case m.EngineRoomClosed(cause):
                self._close_room(cause)
            case m.HouseClosing(cause):
                self._draining = True
                for entry in list(self._ledger.values()):
                    self._fail(entry, cause)
            case m.PressureMeasured(level):
                self._pressure = level
            case m.Drain(emptied):
                self._draining = True
                self._emptied = emptied
            case m.Tick(now):
                self._end_overdue(now)
            case _:
                assert_never(message)
        if self._emptied and not self._ledger:
            self._emptied()

    def _admit(self, requests: tuple[m.Request, ...]) -> None:
        reason = refusal(
            len(requests),
            open_requests=len(self._ledger),
            credits=self._credits,
            draining=self._draining,
            pressure=self._pressure,
            action=self._memory_action,
        )
        for request in requests:
            if reason:
                self._rejected += 1
                request.sink.last_word(m.Rejected(request.request_id, reason, RETRY_AFTER_S[reason]))
            else:
                self._let_in(request)
        self._peak_open = max(self._peak_open, len(self._ledger))

    def _let_in(self, request: m.Request) -> None:
        asked = request.sampling.max_tokens
        granted = granted_tokens(asked, pressure=self._pressure, action=self._memory_action)
        if granted < asked:
            request = replace(request, sampling=replace(request.sampling, max_tokens=granted))
        self._ledger[request.request_id] = Entry(request, Reading(0, request.arrived_at))
        request.sink.offer(m.Accepted(request.request_id))
        self._enqueue(self._ledger[request.request_id])

    def _enqueue(self, entry: Entry) -> None:
        if self._epoch is not None:
            delivered = tuple(entry.request.sink.delivered)
            self._scheduler.tell(m.Enqueue(self._epoch, entry.request, delivered, suspect=entry.blamed > 0))

    def _cancel(self, request_id: RequestId, cause: CancelCause) -> None:
        entry = self._ledger.get(request_id)
        if entry is None or entry.cancelled:
            return
        entry.cancelled = cause
        if self._epoch is None:
            self._end_cancelled(entry, cause)
        else:
            self._scheduler.tell(m.Cancel(request_id, cause))

    def _close(self, request_id: RequestId, usage: m.Usage) -> None:
        if self._ledger.pop(request_id, None):
            self._closed += 1
            self._prompt_tokens += usage.prompt_tokens
            self._completion_tokens += usage.completion_tokens

    def _open_room(self, epoch: int) -> None:
        self._epoch = epoch
        for entry in list(self._ledger.values()):
            match fate(ended=entry.request.sink.ended, blamed=entry.blamed):
                case Fate.CLOSE:
                    self._close(entry.request.request_id, self._usage(entry))
                case Fate.FAIL:
                    self._fail(entry, "the engine died twice while it worked on this request")
                case Fate.RESUME:
                    self._enqueue(entry)

    def _close_room(self, cause: str) -> None:
        self._epoch = None
        if self._ledger:
            log.warning("engine room closed (%s) with %d requests open", cause, len(self._ledger))
        for entry in list(self._ledger.values()):
            entry.blamed = entry.blamed + 1 if entry.staged_with == len(entry.request.sink.delivered) else 0
            entry.staged_with = None
            if entry.cancelled:
                self._end_cancelled(entry, entry.cancelled)

    def _end_cancelled(self, entry: Entry, cause: CancelCause) -> None:
        request, usage = entry.request, self._usage(entry)
        if not request.sink.ended:
            request.sink.last_word(m.Cancelled(request.request_id, cause, usage))
        self._close(request.request_id, usage)

    def _fail(self, entry: Entry, error: str) -> None:
        request = entry.request
        if not request.sink.ended:
            request.sink.last_word(m.Failed(request.request_id, error))
        self._close(request.request_id, self._usage(entry))

    def _end_overdue(self, now: float) -> None:
        for entry in list(self._ledger.values()):
            request = entry.request
            sink = request.sink
            entry.reading = read_on(entry.reading, taken=sink.taken, unread=sink.unread, now=now)
            cause = overdue(entry.reading, deadline=request.deadline, now=now, stall_s=self._stall_s)
            if cause:
                self._cancel(request.request_id, cause)

    @staticmethod
    def _usage(entry: Entry) -> m.Usage:
        return m.Usage(len(entry.request.prompt_ids), 0, len(entry.request.sink.delivered))

    def snapshot(self) -> AdmitterSnapshot:
        return AdmitterSnapshot(
            open_requests=tuple(self._ledger),
            credits=self._credits,
            draining=self._draining,
            pressure=self._pressure,
            requests_closed=self._closed,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            peak_open=self._peak_open,
            rejected=self._rejected,
            arrived_at=tuple(entry.request.arrived_at for entry in self._ledger.values()),
        )
