"""PrefillWorker: sequences whose prompt is not yet in the KV cache."""

from dataclasses import dataclass
from typing import assert_never

from actors import messages as m
from actors.base import Actor, Ref
from actors.policies.chunks import share_out
from actors.snapshots import PrefillingSequence, PrefillSnapshot
from runtime.engine.commands import Forget, LoadKv, Prefill, Prefilled, PrefillSlice, ScoredSlice, SequenceFailed
from runtime.engine.host import Deliver, EngineRef
from runtime.types import FinishReason, RequestId, SequenceId, TokenOutput


@dataclass(slots=True)
class Prompt:
    """A sequence on its way into the KV cache. All of its history but the last id has to get there: the last
    one is fed in the first decode step."""

    sequence: m.Sequence
    sent: int
    """Leading ids of the history that are in the cache or on their way there."""
    done: int
    """Those the engine has answered for."""
    scores: list[TokenOutput] | None
    """Of the leading ids, as far as the engine has told them; None if the prompt is not to be scored."""

    @property
    def wanted(self) -> int:
        return len(self.sequence.history) - 1

    def take(self, share: int) -> PrefillSlice:
        """The next `share` ids for the engine."""
        start, self.sent = self.sent, self.sent + share
        sequence_id, history = self.sequence.sequence_id, self.sequence.history
        if self.scores is None:
            return PrefillSlice(sequence_id, history[start : self.sent])
        targets = history[start + 1 : self.sent + 1]
        top_logprobs = self.sequence.request.score_prompt or 0
        return PrefillSlice(sequence_id, history[start : self.sent], targets, top_logprobs)

    def usage(self) -> m.Usage:
        request = self.sequence.request
        return m.Usage(len(request.prompt_ids), self.sequence.cached_tokens, len(request.sink.delivered))


class PrefillWorker(Actor[m.PrefillWord]):
    """Feeds prompts to the engine in chunks, one chunk a turn, and hands finished sequences to DecodeWorker."""

    def __init__(
        self,
        *,
        engine: EngineRef,
        reply: Deliver,
        scheduler: Ref[m.SequencePrefilled | m.SequenceEnded | m.PrefillTurnEnded],
        decode_worker: Ref[m.JoinDecode | m.Cancel],
    ) -> None:
        self._engine = engine
        self._reply = reply
        self._scheduler = scheduler
        self._decode_worker = decode_worker
        self._prompts: dict[RequestId, Prompt] = {}
        self._shares: dict[RequestId, int] = {}
        """What the turn under way holds of each sequence."""

    def receive(self, message: m.PrefillWord) -> None:
        match message:
            case m.StartPrefill(sequence):
                self._start(sequence)
            case m.GrantPrefill(budget_tokens):
                self._prefill(budget_tokens)
            case m.Cancel():
                self._cancel(message)
            case m.EngineReplied(Prefilled(tokens, seconds, failed, scored)):
                for each in failed:
                    self._fail(each)
                for piece in scored:
                    self._note(piece)
                self._advance()
                self._scheduler.tell(m.PrefillTurnEnded(tokens, seconds))
            case m.EngineReplied():
                pass
            case _:
                assert_never(message)

    def _start(self, sequence: m.Sequence) -> None:
        request = sequence.request
        # The first id comes behind nothing that could make it likely.
        scores = [TokenOutput(request.prompt_ids[0])] if request.to_score else None
        prompt = Prompt(sequence, sent=sequence.cached_tokens, done=sequence.cached_tokens, scores=scores)
        self._prompts[request.request_id] = prompt
        if sequence.kv is not None:
            self._engine.submit(LoadKv(sequence.kv, sequence.sequence_id, sequence.cached_tokens), self._reply)
        self._hand_over_if_done(prompt)

    def _prefill(self, budget_tokens: int) -> None:
        remaining = {p.sequence.sequence_id: p.wanted - p.sent for p in self._prompts.values()}
        shares = share_out({key: left for key, left in remaining.items() if left}, budget_tokens)
        if not shares:
            self._scheduler.tell(m.PrefillTurnEnded(tokens=0, seconds=0.0))
            return
        self._engine.submit(Prefill(tuple(self._slices(shares))), self._reply)

    def _slices(self, shares: dict[SequenceId, int]) -> list[PrefillSlice]:
        slices = []
        for request_id, prompt in self._prompts.items():
            if share := shares.get(prompt.sequence.sequence_id):
                slices.append(prompt.take(share))
                self._shares[request_id] = share
        return slices

    def _advance(self) -> None:
        for request_id, share in self._shares.items():
            if prompt := self._prompts.get(request_id):
                prompt.done += share
                prompt.sequence.request.sink.offer(m.PrefillAdvanced(request_id, prompt.done, prompt.wanted))
                self._hand_over_if_done(prompt)
        self._shares = {}

    def _note(self, piece: ScoredSlice) -> None:
        for prompt in self._prompts.values():
            if prompt.sequence.sequence_id == piece.sequence_id and prompt.scores:
                prompt.scores += piece.targets

    def _hand_over_if_done(self, prompt: Prompt) -> None:
        if prompt.done < prompt.wanted:
            return
        request = prompt.sequence.request
        del self._prompts[request.request_id]
        if prompt.scores:
            request.sink.prompt_scored(m.PromptScored(request.request_id, tuple(prompt.scores)))
        if request.sampling.max_tokens == 0:
            self._end(prompt, m.Finished(request.request_id, (), FinishReason.LENGTH, prompt.usage()))
            return
        self._decode_worker.tell(m.JoinDecode(prompt.sequence))
        self._scheduler.tell(m.SequencePrefilled(request.request_id))

    def _cancel(self, cancel: m.Cancel) -> None:
        prompt = self._prompts.pop(cancel.request_id, None)
        if prompt is None:
            # It has gone on to DecodeWorker, or ended; the Cancel follows it.
            self._decode_worker.tell(cancel)
            return
        self._end(prompt, m.Cancelled(cancel.request_id, cancel.cause, prompt.usage()))

    def _end(self, prompt: Prompt, word: m.Finished | m.Cancelled) -> None:
        self._engine.submit(Forget((prompt.sequence.sequence_id,)), self._reply)
        prompt.sequence.request.sink.last_word(word)
        self._scheduler.tell(m.SequenceEnded(word.request_id, word.usage, kept=None))

    def _fail(self, failed: SequenceFailed) -> None:
        for request_id, prompt in self._prompts.items():
            if prompt.sequence.sequence_id == failed.sequence_id:
                del self._prompts[request_id]
                prompt.sequence.request.sink.last_word(m.Failed(request_id, failed.error, failed.refused))
                self._scheduler.tell(m.SequenceEnded(request_id, prompt.usage(), kept=None))
                return

    def snapshot(self) -> PrefillSnapshot:
        return PrefillSnapshot(
            tuple(
                PrefillingSequence(
                    request_id=request_id,
                    done_tokens=prompt.done,
                    total_tokens=prompt.wanted,
                    cached_tokens=prompt.sequence.cached_tokens,
                    hit_type=prompt.sequence.hit_type,
                    max_tokens=prompt.sequence.request.sampling.max_tokens,
                )
                for request_id, prompt in self._prompts.items()
            )
        )
