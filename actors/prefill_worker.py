"""PrefillWorker: sequences whose prompt is not yet in the KV cache."""

from collections import deque
from typing import assert_never

from actors import messages as m
from actors.base import Actor, Ref
from actors.policies.chunks import ANYWHERE, Chunks, share_out
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
from runtime.types import FinishReason, KvCheckpoint, RequestId, SequenceId, TokenOutput


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
        trimmable: bool,
        chunks: Chunks = ANYWHERE,
    ) -> None:
        """`kept` takes the engine's answers to StoreKv: to CacheManager. `trimmable` as in ModelFacts. Where `chunks`
        are fixed only prompts are computed here: DecodeWorker's rows make their earlier output again."""
        self._engine = engine
        self._reply = reply
        self._kept = kept
        self._scheduler = scheduler
        self._decode_worker = decode_worker
        self._cache_manager = cache_manager
        self._trimmable = trimmable
        self._chunks = chunks
        self._prompts: dict[SequenceId, Prompt] = {}
        """Oldest first."""
        self._shares: dict[SequenceId, int] = {}
        """What the turn under way holds of each sequence."""
        self._storing: dict[SequenceId, Prompt] = {}
        """Those with a checkpoint that CacheManager has not handled, in prefill or past it."""
        self._early: dict[RequestId, m.PrefixFound] = {}
        """What was found for requests that are not in prefill: one may be on its way here, the others have gone on."""
        self._turn: int | None = None
        """The budget of a turn that was granted and is not used yet: whoever is in prefill is held up."""

    def receive(self, message: m.PrefillWord) -> None:
        match message:
            case m.StartPrefill(sequence):
                self._start(sequence)
            case m.GrantPrefill(budget_tokens):
                self._turn = budget_tokens
            case m.CheckpointHandled(sequence_id):
                self._handled(sequence_id)
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
            case m.EngineReplied():
                pass
            case _:
                assert_never(message)
        if self._turn is not None:
            self._use_turn(self._turn)

    def _start(self, sequence: m.Sequence) -> None:
        request = sequence.request
        # The first id comes behind nothing that could make it likely.
        scores = [TokenOutput(request.prompt_ids[0])] if request.to_score else None
        cached = sequence.cached_tokens
        ids = request.prompt_ids if self._chunks.tokens else sequence.history
        checkpoints = deque(sequence.checkpoints)
        prompt = Prompt(sequence, ids, sent=cached, done=cached, scores=scores, checkpoints=checkpoints)
        prompt.line_up({**self._storing, **self._prompts}.values())
        self._prompts[sequence.sequence_id] = prompt
        if found := self._early.get(request.request_id):
            self._load(found)
        # The Scheduler never starts two at once: the others have gone on.
        self._early.clear()
        self._hand_over_if_done(prompt)

    def _use_turn(self, budget_tokens: int) -> None:
        """Compute whatever can be computed now. With nobody left in prefill the turn is given back; where all are held
        up it waits: what they wait for is under way."""
        left = {key: each for key, each in self._prompts.items() if each.sent < each.wanted}
        ready = {key: each for key, each in left.items() if not each.held_up(trimmable=self._trimmable)}
        if left and not ready:
            return
        self._turn = None
        if not ready:
            self._scheduler.tell(m.PrefillTurnEnded(tokens=0, seconds=0.0))
            return
        stops = {key: each.next_stop for key, each in ready.items()}
        sent = {key: each.sent for key, each in ready.items()}
        shares = share_out({key: stops[key] - sent[key] for key in ready}, budget_tokens)
        shares = self._chunks.whole(shares, sent, stops)
        self._engine.submit(Prefill(tuple(self._slices(shares))), self._reply)
        for sequence_id, prompt in ready.items():
            if checkpoint := prompt.reached():
                self._store(sequence_id, prompt, checkpoint)

    def _store(self, sequence_id: SequenceId, prompt: Prompt, checkpoint: KvCheckpoint) -> None:
        prompt.storing.append(checkpoint.tokens)
        self._storing[sequence_id] = prompt
        self._engine.submit(StoreKv(sequence_id, checkpoint.pieces), self._kept)

    def _handled(self, sequence_id: SequenceId) -> None:
        """Whoever can begin with that checkpoint has been told."""
        if prompt := self._storing.get(sequence_id):
            prompt.storing.popleft()
            if not prompt.storing:
                del self._storing[sequence_id]

    def _slices(self, shares: dict[SequenceId, int]) -> list[PrefillSlice]:
        self._shares = {key: shares[key] for key in self._prompts if key in shares}
        return [piece for key, share in self._shares.items() for piece in self._prompts[key].take(share, self._chunks)]

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
        if prompt is None:
            self._early[found.request_id] = found
        elif prompt.is_spared_by(found):
            prompt.found.append(found)
            self._engine.submit(LoadKv(prompt.sequence.sequence_id, found.handles, found.tokens), self._reply)

    def _loaded(self, sequence_id: SequenceId, tokens: int) -> None:
        """The engine started a sequence anew, or could not, and then it goes on from where it is."""
        prompt = self._prompts.get(sequence_id)
        if prompt and prompt.found:
            found = prompt.found.popleft()
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
        prompt.behind.clear()
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
        self._let_go(prompt)
        self._end(prompt, m.Cancelled(cancel.request_id, cancel.cause, prompt.usage()))

    def _end(self, prompt: Prompt, word: m.Finished | m.Cancelled) -> None:
        sequence = prompt.sequence
        sequence.request.sink.last_word(word)
        held = prompt.ids[: prompt.done]
        self._scheduler.tell(m.SequenceEnded(word.request_id, sequence.sequence_id, word.usage, held))

    def _preempt(self, preempt: m.Preempt) -> None:
        prompt = self._prompt_of(preempt.request_id)
        if prompt is None:
            # It has gone on to DecodeWorker, or ended; the word follows it.
            self._decode_worker.tell(preempt)
            return
        self._let_go(prompt)
        sequence = prompt.sequence
        output_ids = sequence.history[len(sequence.request.prompt_ids) :]
        held = prompt.ids[: prompt.done]
        self._scheduler.tell(m.SequencePreempted(sequence, output_ids, sequence.unsent, held))

    def _fail(self, failed: SequenceFailed) -> None:
        if prompt := self._prompts.get(failed.sequence_id):
            self._let_go(prompt)
            request = prompt.sequence.request
            request.sink.last_word(m.Failed(request.request_id, failed.error, failed.refused))
            self._scheduler.tell(m.SequenceEnded(request.request_id, failed.sequence_id, prompt.usage(), held=()))

    def _let_go(self, prompt: Prompt) -> None:
        """Before it is done."""
        prompt.give_up()
        del self._prompts[prompt.sequence.sequence_id]
        self._storing.pop(prompt.sequence.sequence_id, None)

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
                if not prompt.sequence.request.background
            )
        )
