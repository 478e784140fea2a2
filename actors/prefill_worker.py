"""PrefillWorker: sequences whose prompt is not yet in the KV cache."""

from collections import deque
from typing import assert_never

from actors import messages as m
from actors.base import Actor, Ref
from actors.policies.chunks import share_out
from actors.prompt import Prompt
from actors.snapshots import PrefillingSequence, PrefillSnapshot
from runtime.engine.commands import (
    KvLoaded,
    LoadKv,
    Prefill,
    Prefilled,
    PrefillSlice,
    ScoredSlice,
    SequenceFailed,
    StoreKv,
)
from runtime.engine.host import Deliver, EngineRef
from runtime.types import FinishReason, RequestId, SequenceId, TokenOutput


class PrefillWorker(Actor[m.PrefillWord]):
    """Feeds prompts to the engine in chunks, one chunk a turn, and hands finished sequences to DecodeWorker."""

    def __init__(
        self,
        *,
        engine: EngineRef,
        reply: Deliver,
        kept: Deliver,
        scheduler: Ref[m.SequencePrefilled | m.SequenceEnded | m.SequencePreempted | m.PrefillTurnEnded],
        decode_worker: Ref[m.JoinDecode | m.Preempt | m.Cancel],
        cache_manager: Ref[m.PrefixTaken],
    ) -> None:
        """`kept` takes the engine's answers to StoreKv: to CacheManager."""
        self._engine = engine
        self._reply = reply
        self._kept = kept
        self._scheduler = scheduler
        self._decode_worker = decode_worker
        self._cache_manager = cache_manager
        self._prompts: dict[SequenceId, Prompt] = {}
        """Oldest first."""
        self._shares: dict[SequenceId, int] = {}
        """What the turn under way holds of each sequence."""
        self._waiting_turn: int | None = None
        """The budget of a turn that waits for sequences which are started anew: there is nobody else to prefill."""

    def receive(self, message: m.PrefillWord) -> None:
        match message:
            case m.StartPrefill(sequence):
                self._start(sequence)
            case m.GrantPrefill(budget_tokens):
                self._prefill(budget_tokens)
            case m.CheckpointHandled():
                pass
            case m.PrefixFound():
                self._load(message)
            case m.Preempt():
                self._preempt(message)
            case m.Cancel():
                self._cancel(message)
            case m.EngineReplied(Prefilled(tokens, seconds, failed, scored)):
                for each in failed:
                    self._fail(each)
                for piece in scored:
                    self._note(piece)
                self._advance()
                self._scheduler.tell(m.PrefillTurnEnded(tokens, seconds))
            case m.EngineReplied(KvLoaded(sequence_id, tokens)):
                self._loaded(sequence_id, tokens)
                if self._waiting_turn is not None:
                    self._prefill(self._waiting_turn)
            case m.EngineReplied():
                pass
            case _:
                assert_never(message)

    def _start(self, sequence: m.Sequence) -> None:
        request = sequence.request
        # The first id comes behind nothing that could make it likely.
        scores = [TokenOutput(request.prompt_ids[0])] if request.to_score else None
        cached = sequence.cached_tokens
        prompt = Prompt(sequence, sent=cached, done=cached, scores=scores, checkpoints=deque(sequence.checkpoints))
        self._prompts[sequence.sequence_id] = prompt
        self._hand_over_if_done(prompt)

    def _prefill(self, budget_tokens: int) -> None:
        remaining = {key: p.next_stop - p.sent for key, p in self._prompts.items() if not p.found}
        shares = share_out({key: left for key, left in remaining.items() if left}, budget_tokens)
        nobody_but_them = not shares and any(prompt.found for prompt in self._prompts.values())
        self._waiting_turn = budget_tokens if nobody_but_them else None
        if nobody_but_them:
            return
        if not shares:
            self._scheduler.tell(m.PrefillTurnEnded(tokens=0, seconds=0.0))
            return
        self._engine.submit(Prefill(tuple(self._slices(shares))), self._reply)
        for prompt in self._prompts.values():
            if checkpoint := prompt.reached():
                self._engine.submit(StoreKv(prompt.sequence.sequence_id, checkpoint.pieces), self._kept)

    def _slices(self, shares: dict[SequenceId, int]) -> list[PrefillSlice]:
        self._shares = {key: shares[key] for key in self._prompts if key in shares}
        return [self._prompts[key].take(share) for key, share in self._shares.items()]

    def _advance(self) -> None:
        for sequence_id, share in self._shares.items():
            if prompt := self._prompts.get(sequence_id):
                prompt.done += share
                request = prompt.sequence.request
                request.sink.offer(m.PrefillAdvanced(request.request_id, prompt.done, prompt.wanted))
                self._hand_over_if_done(prompt)
        self._shares = {}

    def _note(self, piece: ScoredSlice) -> None:
        prompt = self._prompts.get(piece.sequence_id)
        if prompt and prompt.scores:
            prompt.scores += piece.targets

    def _load(self, found: m.PrefixFound) -> None:
        prompt = self._prompt_of(found.request_id)
        if prompt and not prompt.found and prompt.sent < found.tokens:
            prompt.found = found
            self._engine.submit(LoadKv(prompt.sequence.sequence_id, found.handles, found.tokens), self._reply)

    def _loaded(self, sequence_id: SequenceId, tokens: int) -> None:
        """The engine started a sequence anew, or could not, and then it goes on from where it is."""
        prompt = self._prompts.get(sequence_id)
        if prompt and prompt.found:
            found, prompt.found = prompt.found, None
            if tokens:
                prompt.start_anew(found)
                self._cache_manager.tell(m.PrefixTaken(found.request_id, found.hit_type))
            self._hand_over_if_done(prompt)

    def _prompt_of(self, request_id: RequestId) -> Prompt | None:
        return next((each for each in self._prompts.values() if each.sequence.request.request_id == request_id), None)

    def _hand_over_if_done(self, prompt: Prompt) -> None:
        if prompt.done < prompt.wanted or prompt.found:
            return
        request = prompt.sequence.request
        del self._prompts[prompt.sequence.sequence_id]
        if prompt.scores:
            request.sink.prompt_scored(m.PromptScored(request.request_id, tuple(prompt.scores)))
        if request.sampling.max_tokens == 0:
            self._end(prompt, m.Finished(request.request_id, (), FinishReason.LENGTH, prompt.usage()))
            return
        self._decode_worker.tell(m.JoinDecode(prompt.sequence))
        self._scheduler.tell(m.SequencePrefilled(request.request_id))

    def _cancel(self, cancel: m.Cancel) -> None:
        prompt = self._prompt_of(cancel.request_id)
        if prompt is None:
            # It has gone on to DecodeWorker, or ended; the Cancel follows it.
            self._decode_worker.tell(cancel)
            return
        del self._prompts[prompt.sequence.sequence_id]
        self._end(prompt, m.Cancelled(cancel.request_id, cancel.cause, prompt.usage()))

    def _end(self, prompt: Prompt, word: m.Finished | m.Cancelled) -> None:
        sequence = prompt.sequence
        sequence.request.sink.last_word(word)
        held = sequence.history[: prompt.done]
        self._scheduler.tell(m.SequenceEnded(word.request_id, sequence.sequence_id, word.usage, held))

    def _preempt(self, preempt: m.Preempt) -> None:
        prompt = self._prompt_of(preempt.request_id)
        if prompt is None:
            # It has gone on to DecodeWorker, or ended; the word follows it.
            self._decode_worker.tell(preempt)
            return
        sequence = prompt.sequence
        del self._prompts[sequence.sequence_id]
        output_ids = sequence.history[len(sequence.request.prompt_ids) :]
        held = sequence.history[: prompt.done]
        self._scheduler.tell(m.SequencePreempted(sequence, output_ids, sequence.unsent, held))

    def _fail(self, failed: SequenceFailed) -> None:
        if prompt := self._prompts.pop(failed.sequence_id, None):
            request = prompt.sequence.request
            request.sink.last_word(m.Failed(request.request_id, failed.error, failed.refused))
            self._scheduler.tell(m.SequenceEnded(request.request_id, failed.sequence_id, prompt.usage(), held=()))

    def snapshot(self) -> PrefillSnapshot:
        return PrefillSnapshot(
            tuple(
                PrefillingSequence(
                    request_id=prompt.sequence.request.request_id,
                    done_tokens=prompt.done,
                    total_tokens=prompt.wanted,
                    cached_tokens=prompt.sequence.served_tokens,
                    hit_type=prompt.sequence.hit_type,
                    max_tokens=prompt.sequence.request.sampling.max_tokens,
                )
                for prompt in self._prompts.values()
            )
        )
