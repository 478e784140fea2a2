"""Scheduler: the waiting line, who runs, and whose turn it is at the engine."""

import logging
from itertools import count
from typing import assert_never

from actors import messages as m
from actors.base import Actor, Ref
from actors.line import Line
from actors.policies.mode import mode_after, shown
from actors.policies.stage import Scene, Who, next_on, to_make_way
from actors.policies.turns import Turn
from actors.snapshots import SchedulerSnapshot
from actors.stage import OnStage, Stage
from actors.turns import Turns
from runtime.log import about
from runtime.types import RequestId, RuntimeMode, SequenceId

log = logging.getLogger("troupe.scheduler")

LIVES_APART = 1 << 32
"""Sequence ids of two lives of the engine room never meet."""


class Scheduler(Actor[m.SchedulerWord]):
    """Moves requests from the line to the workers, first come, first served, and grants engine turns. What nobody waits
    for, the background, has a line of its own."""

    def __init__(
        self,
        *,
        epoch: int,
        max_concurrency: int,
        mode: RuntimeMode,
        mode_threshold: int,
        may_serialise: bool,
        serialised: bool,
        prefill_chunk_tokens: int,
        max_gap_ratio: float,
        request_admitter: Ref[m.RequestStaged | m.RequestPreempted | m.RequestClosed],
        cache_manager: Ref[m.LeaseKv | m.ReleaseKv],
        prefill_worker: Ref[m.StartPrefill | m.GrantPrefill | m.Preempt | m.Cancel],
        decode_worker: Ref[m.GrantDecode],
    ) -> None:
        """`may_serialise`: one at a time while answers diverge in company. `serialised`: they did when the last life
        ended."""
        self._epoch = epoch
        self._max_concurrency = max_concurrency
        self._mode = mode
        self._mode_threshold = mode_threshold
        self._may_serialise = may_serialise
        self._serialised = serialised
        self._request_admitter = request_admitter
        self._cache_manager = cache_manager
        self._prefill_worker = prefill_worker
        self._decode_worker = decode_worker
        self._sequence_ids = count(epoch * LIVES_APART)
        self._line = Line()
        self._background = Line()
        self._leasing: m.Enqueue | None = None
        """The head of a line while CacheManager considers it."""
        self._leasing_as = SequenceId(0)
        self._left_since_asked = False
        """Somebody has left the stage for good since CacheManager was last asked: the next try may succeed."""
        self._staged = Stage()
        self._on_trial: RequestId | None = None
        """A suspect on stage that has not spoken yet. There is never a second one, so that the next death tells."""
        self._passed_over = 0
        """See Scene."""
        self._turns = Turns(prefill_chunk_tokens=prefill_chunk_tokens, max_gap_ratio=max_gap_ratio)
        self._preemptions = 0

    def receive(self, message: m.SchedulerWord) -> None:
        match message:
            case m.Enqueue(epoch, request):
                if epoch == self._epoch:
                    self._line_of(request).append(message)
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
                self._turns.prefilled(tokens, seconds, beside_streams=bool(self._staged.users_in(Turn.DECODE)))
            case m.DecodeTurnEnded(steps, seconds):
                self._turns.decoded(steps, seconds, for_streams=bool(self._staged.users_in(Turn.DECODE)))
            case m.DivergenceMeasured(diverged):
                self._serialise(diverged)
            case _:
                assert_never(message)
        self._mode = mode_after(self._mode, requests=self._users_inside(), threshold=self._mode_threshold)
        self._make_way()
        self._lease_next()
        self._grant_turns()

    # --- who goes on, who goes back ---

    def _scene(self) -> Scene:
        background, stage = self._background, self._staged
        apart_again = background.starts_with_one_apart and stage.has_one_apart
        return Scene(
            seats=self._max_concurrency,
            alone=self._serialised or self._mode is not RuntimeMode.BATCHED,
            users=stage.users,
            background=len(stage.background),
            leaving=stage.leaving,
            user_waits=bool(self._line),
            barred=self._line.starts_with_a_suspect and self._on_trial is not None,
            starved=self._line.starved,
            background_waits=bool(background) and not background.starved and not apart_again,
            passed_over=self._passed_over,
        )

    def _lease_next(self) -> None:
        if self._leasing or not (self._line or self._background):
            return
        who = next_on(self._scene())
        if who is None:
            return
        self._leasing = asked = (self._line if who is Who.USER else self._background).pop()
        self._leasing_as = SequenceId(next(self._sequence_ids))
        self._left_since_asked = False
        again = asked.served_before is not None
        self._cache_manager.tell(m.LeaseKv(asked.request, self._leasing_as, asked.history, again))

    def _stage(self, lease: m.KvLeased) -> None:
        asked = self._leasing
        if asked is None or asked.request.request_id != lease.request_id:
            return  # It was cancelled while CacheManager considered it.
        self._leasing = None
        self._staged[lease.request_id] = OnStage(asked.request)
        if asked.suspect:
            self._on_trial = lease.request_id
        if not asked.request.background:
            self._request_admitter.tell(m.RequestStaged(lease.request_id))
        cached_tokens = min(lease.cached_tokens, len(asked.request.prompt_ids))
        asked.request.sink.offer(m.Staged(lease.request_id, cached_tokens))
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
        line = self._line_of(enqueued.request)
        line.put_back(enqueued)
        line.starved = bool(self._staged) and not self._left_since_asked

    def _make_way(self) -> None:
        """Who waits for nobody goes back for who does."""
        if self._line:
            for request_id in self._staged.background[: to_make_way(self._scene())]:
                self._preempt(request_id)

    def _preempt_youngest(self) -> None:
        """Who came last waits again, of the background before all others: whoever has waited longest gets done. One
        always stays. While somebody is on the way out nobody else goes: CacheManager says it again if that was not
        enough."""
        if len(self._staged) > 1 and not self._staged.leaving:
            self._preempt(self._staged.youngest)

    def _preempt(self, request_id: RequestId) -> None:
        if not self._staged[request_id].preempted:
            self._staged[request_id].preempted = True
            self._prefill_worker.tell(m.Preempt(request_id))

    def _back_in_line(self, preempted: m.SequencePreempted) -> None:
        sequence = preempted.sequence
        request = sequence.request
        cancel = self._staged[request.request_id].cancel
        suspect = self._on_trial == request.request_id
        self._quit_stage(request, sequence.sequence_id, preempted.held)
        if request.background:
            self._wait_again(m.Enqueue(self._epoch, request, ()))  # What it has said nobody has heard.
            self._line.starved, self._left_since_asked = False, True
        else:
            said = "%s goes back in line: its KV bytes are needed"
            log.info(said, request.request_id, extra=about(request.request_id))
            self._preemptions += 1
            output, unsent, served = preempted.output_ids, preempted.unsent, sequence.served_tokens
            # Whoever stays on stage would send it back again.
            self._wait_again(m.Enqueue(self._epoch, request, output, unsent, served, suspect))
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
            self._close(enqueued.request, usage)

    def _take_from_line(self, request_id: RequestId) -> m.Enqueue | None:
        if self._leasing and self._leasing.request.request_id == request_id:
            taken, self._leasing = self._leasing, None
            self._cache_manager.tell(m.ReleaseKv(request_id, self._leasing_as, ()))
            return taken
        return self._line.take(request_id) or self._background.take(request_id)

    def _leave(self, ended: m.SequenceEnded) -> None:
        if on_stage := self._staged.get(ended.request_id):
            self._line.starved = self._background.starved = False
            self._left_since_asked = True
            self._quit_stage(on_stage.request, ended.sequence_id, ended.held)
            self._close(on_stage.request, ended.usage)

    def _quit_stage(self, request: m.Request, sequence_id: SequenceId, held: tuple[int, ...]) -> None:
        del self._staged[request.request_id]
        self._acquit(request.request_id)
        self._cache_manager.tell(m.ReleaseKv(request.request_id, sequence_id, held if request.leaves_kv else ()))

    def _close(self, request: m.Request, usage: m.Usage) -> None:
        if not request.background:
            self._request_admitter.tell(m.RequestClosed(request.request_id, usage))

    def _acquit(self, request_id: RequestId) -> None:
        if self._on_trial == request_id:
            self._on_trial = None

    def _serialise(self, diverged: bool) -> None:
        serialised = diverged and self._may_serialise
        if serialised and not self._serialised:
            log.warning("requests run one at a time until their answers in company agree again")
        elif self._serialised and not serialised:
            log.info("requests may run together again")
        self._serialised = serialised

    # --- turns ---

    def _grant_turns(self) -> None:
        stage = self._staged
        if not self._background_inside():
            self._passed_over = 0
        prefilling, decoding = stage.runs(Turn.PREFILL), stage.runs(Turn.DECODE)
        while turn := self._turns.begin(prefilling=prefilling, decoding=decoding):
            self._passed_over += bool(self._background and stage.users)
            if turn is Turn.PREFILL:
                prompts, streams = len(stage.users_in(Turn.PREFILL)), len(stage.users_in(Turn.DECODE))
                self._prefill_worker.tell(m.GrantPrefill(self._turns.prefill_budget(prompts=prompts, streams=streams)))
            else:
                self._decode_worker.tell(m.GrantDecode(steps=1))

    # --- who is where ---

    def _line_of(self, request: m.Request) -> Line:
        return self._background if request.background else self._line

    def _considered(self, *, background: bool) -> tuple[RequestId, ...]:
        """Who is neither in line any more nor on stage yet."""
        asked = self._leasing
        return (asked.request.request_id,) if asked and asked.request.background is background else ()

    def _users_inside(self) -> int:
        return len(self._line) + len(self._considered(background=False)) + self._staged.users

    def _background_inside(self) -> tuple[RequestId, ...]:
        return self._considered(background=True) + self._background.request_ids + self._staged.background

    def snapshot(self) -> SchedulerSnapshot:
        turns = self._turns
        return SchedulerSnapshot(
            waiting=self._considered(background=False) + self._line.request_ids,
            prefilling=self._staged.users_in(Turn.PREFILL),
            decoding=self._staged.users_in(Turn.DECODE),
            turns_under_way=turns.under_way,
            prefill_turns=turns.prefill_turns,
            prefill_budget=turns.pace.budget_tokens,
            usual_step_s=turns.pace.usual_s,
            decode_steps=turns.decode_steps,
            preemptions=self._preemptions,
            mode=shown(self._mode),
            serialised=self._serialised,
            background=self._background_inside(),
            step_s=turns.step_s,
            prefill_s=turns.prefill_s,
            prefill_tokens=turns.prefill_tokens,
        )
