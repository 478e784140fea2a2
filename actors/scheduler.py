"""Scheduler: the waiting line, who runs, and whose turn it is at the engine."""

import logging
from collections import Counter, deque
from dataclasses import dataclass
from itertools import count, takewhile
from typing import assert_never

from actors import messages as m
from actors.base import Actor, Ref
from actors.policies.pace import Pace, after_decode, after_prefill, turn_tokens
from actors.policies.turns import Turn, next_turn
from actors.snapshots import SchedulerSnapshot
from runtime.types import RequestId, SequenceId

log = logging.getLogger("troupe.scheduler")

LIVES_APART = 1 << 32
"""Sequence ids of two lives of the engine room never meet."""


@dataclass(slots=True)
class OnStage:
    """One request that runs."""

    arrived_at: float
    turn: Turn = Turn.PREFILL
    """Which kind of turn advances it."""
    preempted: bool = False
    """It was told to go back in line."""
    cancel: m.Cancel | None = None
    """It was told to end; if it goes back in line first, it ends there."""


class Scheduler(Actor[m.SchedulerWord]):
    """Moves requests from the line to the workers, first come, first served, and grants engine turns."""

    def __init__(
        self,
        *,
        epoch: int,
        max_concurrency: int,
        prefill_chunk_tokens: int,
        max_gap_ratio: float,
        request_admitter: Ref[m.RequestStaged | m.RequestPreempted | m.RequestClosed],
        cache_manager: Ref[m.LeaseKv | m.ReleaseKv],
        prefill_worker: Ref[m.StartPrefill | m.GrantPrefill | m.Preempt | m.Cancel],
        decode_worker: Ref[m.GrantDecode],
    ) -> None:
        self._epoch = epoch
        self._max_concurrency = max_concurrency
        self._prefill_chunk_tokens = prefill_chunk_tokens
        self._max_gap_ratio = max_gap_ratio
        self._request_admitter = request_admitter
        self._cache_manager = cache_manager
        self._prefill_worker = prefill_worker
        self._decode_worker = decode_worker
        self._sequence_ids = count(epoch * LIVES_APART)
        self._line: deque[m.Enqueue] = deque()
        self._leasing: m.Enqueue | None = None
        """The head of the line while CacheManager considers it."""
        self._leasing_as = SequenceId(0)
        self._starved = False
        """The head of the line was refused KV bytes and waits for a release."""
        self._left_since_asked = False
        """Somebody has left the stage for good since CacheManager was last asked: the next try may succeed."""
        self._staged: dict[RequestId, OnStage] = {}
        self._on_trial: RequestId | None = None
        """A suspect on stage that has not spoken yet. There is never a second one, so that the next death tells."""
        self._under_way: Counter[Turn] = Counter()
        self._last: Turn | None = None
        self._pace = Pace()
        self._prefill_turns = self._decode_steps = self._preemptions = 0

    def receive(self, message: m.SchedulerWord) -> None:
        match message:
            case m.Enqueue():
                if message.epoch == self._epoch:
                    self._line.append(message)
            case m.Cancel():
                self._cancel(message)
            case m.KvLeased():
                self._stage(message)
            case m.KvRefused(request_id):
                self._back_to_the_head(request_id)
            case m.KvOverdrawn():
                self._preempt_youngest()
            case m.SequencePrefilled(request_id):
                if request_id in self._staged:
                    self._staged[request_id].turn = Turn.DECODE
            case m.SequenceSpoke(request_id):
                self._acquit(request_id)
            case m.SequenceEnded():
                self._leave(message)
            case m.SequencePreempted():
                self._back_in_line(message)
            case m.PrefillTurnEnded(tokens, seconds):
                self._end_prefill_turn(tokens, seconds)
            case m.DecodeTurnEnded(steps, seconds):
                self._end_decode_turn(steps, seconds)
            case m.DivergenceMeasured():
                pass
            case _:
                assert_never(message)
        self._lease_next()
        self._grant_turns()

    def _lease_next(self) -> None:
        if not self._line or self._leasing or self._starved or len(self._staged) >= self._max_concurrency:
            return
        if self._line[0].suspect and self._on_trial:
            return
        self._leasing = self._line.popleft()
        self._leasing_as = SequenceId(next(self._sequence_ids))
        self._left_since_asked = False
        asked = self._leasing
        again = asked.served_before is not None
        self._cache_manager.tell(m.LeaseKv(asked.request, self._leasing_as, asked.history, again))

    def _stage(self, lease: m.KvLeased) -> None:
        asked = self._leasing
        if asked is None or asked.request.request_id != lease.request_id:
            return  # It was cancelled while CacheManager considered it.
        self._leasing = None
        self._staged[lease.request_id] = OnStage(asked.request.arrived_at)
        if asked.suspect:
            self._on_trial = lease.request_id
        self._request_admitter.tell(m.RequestStaged(lease.request_id))
        self._prefill_worker.tell(m.StartPrefill(self._sequence(asked, lease)))

    def _sequence(self, asked: m.Enqueue, lease: m.KvLeased) -> m.Sequence:
        return m.Sequence(
            request=asked.request,
            sequence_id=self._leasing_as,
            history=asked.history,
            cached_tokens=lease.cached_tokens,
            hit_type=lease.hit_type,
            checkpoints=lease.checkpoints,
            unsent=asked.unsent,
            served_before=asked.served_before,
        )

    def _back_to_the_head(self, request_id: RequestId) -> None:
        if self._leasing and self._leasing.request.request_id == request_id:
            self._wait_again(self._leasing)
            self._leasing = None

    def _wait_again(self, enqueued: m.Enqueue) -> None:
        """In front of all who arrived later, until somebody leaves. Who has left since CacheManager was last asked may
        have made room already; with nobody on stage whatever was leased is on its way back."""
        arrived_at = enqueued.request.arrived_at
        place = sum(1 for _ in takewhile(lambda other: other.request.arrived_at < arrived_at, self._line))
        self._line.insert(place, enqueued)
        self._starved = bool(self._staged) and not self._left_since_asked

    def _preempt_youngest(self) -> None:
        """Who came last waits again: whoever has waited longest gets done. One always stays. While somebody is on the
        way out nobody else goes: CacheManager says it again if that was not enough."""
        if len(self._staged) > 1 and not any(each.preempted for each in self._staged.values()):
            youngest = max(reversed(self._staged), key=lambda request_id: self._staged[request_id].arrived_at)
            self._staged[youngest].preempted = True
            self._prefill_worker.tell(m.Preempt(youngest))

    def _back_in_line(self, preempted: m.SequencePreempted) -> None:
        sequence = preempted.sequence
        request = sequence.request
        log.info("%s goes back in line: its KV bytes are needed", request.request_id)
        self._preemptions += 1
        cancel = self._staged[request.request_id].cancel
        suspect = self._on_trial == request.request_id
        self._quit_stage(request.request_id, sequence.sequence_id, preempted.held)
        again = m.Enqueue(self._epoch, request, preempted.output_ids, preempted.unsent, sequence.served_tokens, suspect)
        self._wait_again(again)  # Whoever stays on stage would send it back again.
        self._request_admitter.tell(m.RequestPreempted(request.request_id))
        if cancel:
            self._cancel(cancel)

    def _cancel(self, cancel: m.Cancel) -> None:
        if on_stage := self._staged.get(cancel.request_id):
            on_stage.cancel = cancel
            self._prefill_worker.tell(cancel)
        elif enqueued := self._take_from_line(cancel.request_id):
            usage = m.Usage(len(enqueued.request.prompt_ids), enqueued.served_before or 0, len(enqueued.output_ids))
            enqueued.request.sink.last_word(m.Cancelled(cancel.request_id, cancel.cause, usage))
            self._request_admitter.tell(m.RequestClosed(cancel.request_id, usage))

    def _take_from_line(self, request_id: RequestId) -> m.Enqueue | None:
        if self._leasing and self._leasing.request.request_id == request_id:
            taken, self._leasing = self._leasing, None
            self._cache_manager.tell(m.ReleaseKv(request_id, self._leasing_as, ()))
            return taken
        for enqueued in self._line:
            if enqueued.request.request_id == request_id:
                self._line.remove(enqueued)
                return enqueued
        return None

    def _leave(self, ended: m.SequenceEnded) -> None:
        if ended.request_id in self._staged:
            self._starved, self._left_since_asked = False, True
            self._quit_stage(ended.request_id, ended.sequence_id, ended.held)
            self._request_admitter.tell(m.RequestClosed(ended.request_id, ended.usage))

    def _quit_stage(self, request_id: RequestId, sequence_id: SequenceId, held: tuple[int, ...]) -> None:
        del self._staged[request_id]
        self._acquit(request_id)
        self._cache_manager.tell(m.ReleaseKv(request_id, sequence_id, held))

    def _acquit(self, request_id: RequestId) -> None:
        if self._on_trial == request_id:
            self._on_trial = None

    def _end_prefill_turn(self, tokens: int, seconds: float) -> None:
        self._under_way[Turn.PREFILL] -= 1
        if tokens:
            self._prefill_turns += 1
            if self._in(Turn.DECODE):
                self._pace = after_prefill(self._pace, tokens, seconds)

    def _end_decode_turn(self, steps: int, seconds: float) -> None:
        self._under_way[Turn.DECODE] -= 1
        if steps:
            self._decode_steps += steps
            self._pace = after_decode(
                self._pace,
                seconds / steps,
                max_gap_ratio=self._max_gap_ratio,
                most_tokens=self._prefill_chunk_tokens,
            )

    def _grant_turns(self) -> None:
        while turn := next_turn(
            prefilling=bool(self._in(Turn.PREFILL)),
            decoding=bool(self._in(Turn.DECODE)),
            under_way=self._under_way,
            last=self._last,
        ):
            self._last = turn
            self._under_way[turn] += 1
            if turn is Turn.PREFILL:
                self._grant_prefill()
            else:
                self._decode_worker.tell(m.GrantDecode(steps=1))

    def _grant_prefill(self) -> None:
        budget_tokens = turn_tokens(
            self._pace,
            prompts=len(self._in(Turn.PREFILL)),
            streams=len(self._in(Turn.DECODE)),
            max_gap_ratio=self._max_gap_ratio,
            most_tokens=self._prefill_chunk_tokens,
        )
        self._prefill_worker.tell(m.GrantPrefill(budget_tokens))

    def _in(self, turn: Turn) -> tuple[RequestId, ...]:
        """Who is advanced by turns of that kind."""
        return tuple(request_id for request_id, each in self._staged.items() if each.turn is turn)

    def snapshot(self) -> SchedulerSnapshot:
        line = ([self._leasing] if self._leasing else []) + list(self._line)
        return SchedulerSnapshot(
            waiting=tuple(enqueued.request.request_id for enqueued in line),
            prefilling=self._in(Turn.PREFILL),
            decoding=self._in(Turn.DECODE),
            turns_under_way=tuple(sorted(self._under_way.elements())),
            prefill_turns=self._prefill_turns,
            prefill_budget=self._pace.budget_tokens,
            usual_step_s=self._pace.usual_s,
            decode_steps=self._decode_steps,
            preemptions=self._preemptions,
        )
