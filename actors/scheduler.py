"""Scheduler: the waiting line, who runs, and whose turn it is at the engine."""

from collections import Counter, deque
from itertools import count
from typing import assert_never

from actors import messages as m
from actors.base import Actor, Ref
from actors.policies.pace import Pace, after_decode, after_prefill, turn_tokens
from actors.policies.turns import Turn, next_turn
from actors.snapshots import SchedulerSnapshot
from runtime.types import RequestId, SequenceId

LIVES_APART = 1 << 32
"""Sequence ids of two lives of the engine room never meet."""


class Scheduler(Actor[m.SchedulerWord]):
    """Moves requests from the line to the workers, first come, first served, and grants engine turns."""

    def __init__(
        self,
        *,
        epoch: int,
        max_concurrency: int,
        prefill_chunk_tokens: int,
        max_gap_ratio: float,
        request_admitter: Ref[m.RequestStaged | m.RequestClosed],
        cache_manager: Ref[m.LeaseKv | m.ReleaseKv],
        prefill_worker: Ref[m.StartPrefill | m.GrantPrefill | m.Cancel],
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
        self._starved = False
        """The head of the line was refused KV bytes and waits for a release."""
        self._staged: dict[RequestId, Turn] = {}
        """Who runs, and which kind of turn advances them."""
        self._on_trial: RequestId | None = None
        """A suspect on stage that has not spoken yet. There is never a second one, so that the next death tells."""
        self._under_way: Counter[Turn] = Counter()
        self._last: Turn | None = None
        self._pace = Pace()
        self._prefill_turns = self._decode_steps = 0

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
            case m.SequencePrefilled(request_id):
                if request_id in self._staged:
                    self._staged[request_id] = Turn.DECODE
            case m.SequenceSpoke(request_id):
                self._acquit(request_id)
            case m.SequenceEnded(request_id, usage, kept):
                self._leave(request_id, usage, kept)
            case m.PrefillTurnEnded(tokens, seconds):
                self._end_prefill_turn(tokens, seconds)
            case m.DecodeTurnEnded(steps, seconds):
                self._end_decode_turn(steps, seconds)
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
        request = self._leasing.request
        total = len(request.prompt_ids) + request.sampling.max_tokens
        servable = () if request.to_score else self._leasing.history
        self._cache_manager.tell(m.LeaseKv(request.request_id, servable, total))

    def _stage(self, lease: m.KvLeased) -> None:
        asked = self._leasing
        if asked is None or asked.request.request_id != lease.request_id:
            # It was cancelled while CacheManager considered it.
            self._cache_manager.tell(m.ReleaseKv(lease.request_id, None))
            return
        self._leasing = None
        self._staged[lease.request_id] = Turn.PREFILL
        if asked.suspect:
            self._on_trial = lease.request_id
        self._request_admitter.tell(m.RequestStaged(lease.request_id))
        self._prefill_worker.tell(m.StartPrefill(self._sequence(asked, lease)))

    def _sequence(self, asked: m.Enqueue, lease: m.KvLeased) -> m.Sequence:
        return m.Sequence(
            request=asked.request,
            sequence_id=SequenceId(next(self._sequence_ids)),
            history=asked.history,
            cached_tokens=lease.cached_tokens,
            hit_type=lease.hit_type,
            kv=lease.kv,
        )

    def _back_to_the_head(self, request_id: RequestId) -> None:
        if self._leasing and self._leasing.request.request_id == request_id:
            self._line.appendleft(self._leasing)
            self._leasing = None
            # With nobody on stage whatever was leased is on its way back, and the next try succeeds.
            self._starved = bool(self._staged)

    def _cancel(self, cancel: m.Cancel) -> None:
        if cancel.request_id in self._staged:
            self._prefill_worker.tell(cancel)
        elif enqueued := self._take_from_line(cancel.request_id):
            usage = m.Usage(len(enqueued.request.prompt_ids), 0, len(enqueued.output_ids))
            enqueued.request.sink.last_word(m.Cancelled(cancel.request_id, cancel.cause, usage))
            self._request_admitter.tell(m.RequestClosed(cancel.request_id, usage))

    def _take_from_line(self, request_id: RequestId) -> m.Enqueue | None:
        if self._leasing and self._leasing.request.request_id == request_id:
            taken, self._leasing = self._leasing, None
            return taken
        for enqueued in self._line:
            if enqueued.request.request_id == request_id:
                self._line.remove(enqueued)
                return enqueued
        return None

    def _leave(self, request_id: RequestId, usage: m.Usage, kept: m.StoredKv | None) -> None:
        if self._staged.pop(request_id, None) is None:
            return
        self._starved = False
        self._acquit(request_id)
        self._cache_manager.tell(m.ReleaseKv(request_id, kept))
        self._request_admitter.tell(m.RequestClosed(request_id, usage))

    def _acquit(self, request_id: RequestId) -> None:
        if self._on_trial == request_id:
            self._on_trial = None

    def _end_prefill_turn(self, tokens: int, seconds: float) -> None:
        self._under_way[Turn.PREFILL] -= 1
        if tokens:
            self._prefill_turns += 1
            if self._decoding:
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
            prefilling=Turn.PREFILL in self._staged.values(),
            decoding=self._decoding,
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
        turns = Counter(self._staged.values())
        budget_tokens = turn_tokens(
            self._pace,
            prompts=turns[Turn.PREFILL],
            streams=turns[Turn.DECODE],
            max_gap_ratio=self._max_gap_ratio,
            most_tokens=self._prefill_chunk_tokens,
        )
        self._prefill_worker.tell(m.GrantPrefill(budget_tokens))

    @property
    def _decoding(self) -> bool:
        return Turn.DECODE in self._staged.values()

    def snapshot(self) -> SchedulerSnapshot:
        line = ([self._leasing] if self._leasing else []) + list(self._line)
        return SchedulerSnapshot(
            waiting=tuple(enqueued.request.request_id for enqueued in line),
            prefilling=tuple(r for r, turn in self._staged.items() if turn is Turn.PREFILL),
            decoding=tuple(r for r, turn in self._staged.items() if turn is Turn.DECODE),
            turns_under_way=tuple(sorted(self._under_way.elements())),
            prefill_turns=self._prefill_turns,
            prefill_budget=self._pace.budget_tokens,
            usual_step_s=self._pace.usual_s,
            decode_steps=self._decode_steps,
        )
