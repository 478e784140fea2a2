"""DecodeWorker: sequences that produce tokens."""

from dataclasses import dataclass, field
from typing import assert_never

from actors import messages as m
from actors.base import Actor, Ref
from actors.policies.leases import grew
from actors.policies.probing import is_reproducible
from actors.snapshots import DecodeSnapshot, DecodingSequence
from runtime.engine.commands import Decode, Decoded, DecodedRow, Join, JoinRow, SequenceFailed
from runtime.engine.host import Deliver, EngineRef
from runtime.types import CancelCause, FinishReason, RequestId, SequenceId, TokenOutput


@dataclass(slots=True)
class Row:
    """One sequence in the running batch."""

    sequence: m.Sequence
    output: list[int] = field(default_factory=list)
    """Output ids produced in this life of the engine room."""
    unsent: list[TokenOutput] = field(default_factory=list)
    """Produced, but not yet taken by the client."""
    first_at: float | None = None
    last_at: float = 0.0

    @property
    def history(self) -> tuple[int, ...]:
        """All ids so far. The engine may be ahead of it."""
        return self.sequence.history + tuple(self.output)

    def add(self, tokens: tuple[TokenOutput, ...], at: float) -> bool:
        """Take what was produced; whether the row needs more room for what comes next."""
        before = len(self.sequence.history) + len(self.output)
        self.output += [token.token_id for token in tokens]
        self.unsent += tokens
        self.first_at = at if self.first_at is None else self.first_at
        self.last_at = at
        return grew(before, before + len(tokens))

    def send(self) -> None:
        """Offer the client what is due; what it has no room for waits here."""
        request = self.sequence.request
        if len(self.unsent) < request.report_every:
            return
        if request.sink.offer(m.TokensDecoded(request.request_id, tuple(self.unsent))):
            self.unsent = []

    def usage(self) -> m.Usage:
        sequence = self.sequence
        prompt_tokens = len(sequence.request.prompt_ids)
        generated = len(sequence.history) - prompt_tokens + len(self.output)
        return m.Usage(prompt_tokens, sequence.served_tokens, generated)

    def ttft_s(self) -> float | None:
        """None before the first token, and in a later run, which does not know of the first."""
        request = self.sequence.request
        first_run = len(self.sequence.history) == len(request.prompt_ids)
        return self.first_at - request.arrived_at if self.first_at is not None and first_run else None

    def tokens_per_second(self) -> float:
        """Over the tokens after the first: that one's time is the prefill's."""
        if self.first_at is None or self.last_at <= self.first_at:
            return 0.0
        return (len(self.output) - 1) / (self.last_at - self.first_at)


class DecodeWorker(Actor[m.DecodeWord]):
    """Steps the running batch, one turn at a time, and sends the tokens on."""

    def __init__(
        self,
        *,
        engine: EngineRef,
        reply: Deliver,
        scheduler: Ref[m.SequenceSpoke | m.SequenceEnded | m.SequencePreempted | m.DecodeTurnEnded],
        cache_manager: Ref[m.KvGrew],
        divergence_probe: Ref[m.ProbeCandidate],
        keep_kv: bool,
        sample_every: int,
    ) -> None:
        """`sample_every`: of so many greedy requests that are answered, one is told to DivergenceProbe; 0 is none."""
        self._engine = engine
        self._reply = reply
        self._scheduler = scheduler
        self._cache_manager = cache_manager
        self._divergence_probe = divergence_probe
        self._keep_kv = keep_kv
        """Whether finished sequences leave their KV cache to the prefix index."""
        self._sample_every = sample_every
        self._greedy = 0
        """How many greedy requests have been answered."""
        self._produced_tokens = 0
        self._rows: dict[SequenceId, Row] = {}

    def receive(self, message: m.DecodeWord) -> None:
        match message:
            case m.JoinDecode(sequence):
                self._join(sequence)
            case m.GrantDecode(steps):
                self._decode(steps)
            case m.Preempt(request_id):
                self._preempt(request_id)
            case m.Cancel(request_id, cause):
                self._cancel(request_id, cause)
            case m.EngineReplied(Decoded(rows, steps, seconds, failed), at):
                for row in rows:
                    self._advance(row, at)
                for each in failed:
                    self._fail(each)
                self._scheduler.tell(m.DecodeTurnEnded(steps, seconds))
            case m.EngineReplied():
                pass
            case _:
                assert_never(message)

    def _join(self, sequence: m.Sequence) -> None:
        self._rows[sequence.sequence_id] = Row(sequence, unsent=list(sequence.unsent))
        request = sequence.request
        row = JoinRow(
            sequence_id=sequence.sequence_id,
            history=sequence.history,
            prompt_tokens=len(request.prompt_ids),
            sampling=request.sampling,
            keep_kv=self._keep_kv and request.leaves_kv,
            apart=request.apart,
        )
        self._engine.submit(Join((row,)), self._reply)

    def _decode(self, steps: int) -> None:
        if self._rows:
            self._engine.submit(Decode(steps), self._reply)
        else:
            self._scheduler.tell(m.DecodeTurnEnded(steps=0, seconds=0.0))

    def _advance(self, decoded: DecodedRow, at: float) -> None:
        row = self._rows.get(decoded.sequence_id)
        if row is None:
            return
        if not row.output:
            self._scheduler.tell(m.SequenceSpoke(row.sequence.request.request_id))
        grown = row.add(decoded.tokens, at)
        if not row.sequence.request.background:
            self._produced_tokens += len(decoded.tokens)
        if decoded.finish:
            self._finish(row, decoded.finish, decoded.kv_tokens)
            return
        row.send()
        if grown:
            self._cache_manager.tell(m.KvGrew(row.sequence.request.request_id, len(row.history) + 1))

    def _finish(self, row: Row, reason: FinishReason, kv_tokens: int) -> None:
        request = row.sequence.request
        request.sink.last_word(m.Finished(request.request_id, tuple(row.unsent), reason, row.usage()))
        self._sample(row)
        self._leave(row, row.history[:kv_tokens])

    def _sample(self, row: Row) -> None:
        """Now and then, have what was answered computed again."""
        request = row.sequence.request
        if self._sample_every and is_reproducible(request.sampling) and not request.background:
            self._greedy += 1
            if self._greedy % self._sample_every == 0:
                output_ids = row.history[len(request.prompt_ids) :]
                self._divergence_probe.tell(m.ProbeCandidate(request.prompt_ids, request.sampling, output_ids))

    def _fail(self, failed: SequenceFailed) -> None:
        if row := self._rows.get(failed.sequence_id):
            request = row.sequence.request
            request.sink.last_word(m.Failed(request.request_id, failed.error, failed.refused))
            self._leave(row, held=())

    def _cancel(self, request_id: RequestId, cause: CancelCause) -> None:
        if row := self._row_of(request_id):
            row.sequence.request.sink.last_word(m.Cancelled(request_id, cause, row.usage()))
            self._leave(row, row.history[:-1])

    def _preempt(self, request_id: RequestId) -> None:
        if row := self._row_of(request_id):
            del self._rows[row.sequence.sequence_id]
            output_ids = row.history[len(row.sequence.request.prompt_ids) :]
            word = m.SequencePreempted(row.sequence, output_ids, tuple(row.unsent), row.history[:-1])
            self._scheduler.tell(word)

    def _row_of(self, request_id: RequestId) -> Row | None:
        return next((row for row in self._rows.values() if row.sequence.request.request_id == request_id), None)

    def _leave(self, row: Row, held: tuple[int, ...]) -> None:
        sequence = row.sequence
        del self._rows[sequence.sequence_id]
        self._scheduler.tell(m.SequenceEnded(sequence.request.request_id, sequence.sequence_id, row.usage(), held))

    def snapshot(self) -> DecodeSnapshot:
        rows = [row for row in self._rows.values() if not row.sequence.request.background]
        return DecodeSnapshot(tuple(self._show(row) for row in rows), self._produced_tokens)

    @staticmethod
    def _show(row: Row) -> DecodingSequence:
        request = row.sequence.request
        return DecodingSequence(
            request_id=request.request_id,
            generated_tokens=row.usage().completion_tokens,
            max_tokens=request.sampling.max_tokens,
            unsent_tokens=len(row.unsent),
            cached_tokens=row.sequence.served_tokens,
            hit_type=row.sequence.hit_type,
            ttft_s=row.ttft_s(),
            tokens_per_second=row.tokens_per_second(),
        )
