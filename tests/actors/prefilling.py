"""A PrefillWorker among recording neighbours, before an engine that answers nothing by itself."""

from dataclasses import replace

from actors import messages as m
from actors.prefill_worker import PrefillWorker
from runtime.engine import commands as c
from runtime.engine.host import Deliver
from runtime.types import HitType, KvCheckpoint, KvHandle, KvPiece, RequestId, SequenceId
from tests.fakes import Client, Recorder

R1, S1 = RequestId("r1"), SequenceId(1)


def sequence(
    request: m.Request,
    number: int = 1,
    *,
    cached: int = 0,
    output: tuple[int, ...] = (),
    checkpoints: tuple[KvCheckpoint, ...] = (),
) -> m.Sequence:
    return m.Sequence(
        request=request,
        sequence_id=SequenceId(number),
        history=request.prompt_ids + output,
        cached_tokens=cached,
        hit_type=HitType.PREFIX if cached else HitType.MISS,
        checkpoints=checkpoints,
    )


def checkpoint(tokens: int) -> KvCheckpoint:
    """Any pieces will do."""
    return KvCheckpoint(tokens, (KvPiece(KvHandle(b"%d" % tokens), KvHandle(b""), 0, tuple(range(tokens))),))


class NotingEngine:
    """An EngineRef that remembers commands and who is to hear their results."""

    def __init__(self) -> None:
        self.submitted: list[tuple[c.Command, Deliver]] = []

    def submit(self, command: c.Command, deliver: Deliver) -> None:
        self.submitted.append((command, deliver))

    def take(self) -> list[c.Command]:
        taken, self.submitted = self.submitted, []
        return [command for command, _ in taken]


class Prefilling:
    def __init__(self, *, trimmable: bool = True) -> None:
        self.engine = NotingEngine()
        self.scheduler = Recorder[m.SequencePrefilled | m.SequenceEnded | m.SequencePreempted | m.PrefillTurnEnded]()
        self.decode = Recorder[m.JoinDecode | m.Preempt | m.Cancel]()
        self.cache_manager = Recorder[m.PrefixTaken]()
        self.client = Client()
        self.actor = PrefillWorker(
            engine=self.engine,
            reply=self.reply,
            kept=self.kept,
            scheduler=self.scheduler,
            decode_worker=self.decode,
            cache_manager=self.cache_manager,
            trimmable=trimmable,
        )

    def reply(self, result: c.Result, at: float) -> None:
        """To itself."""
        self.actor.receive(m.EngineReplied(result, at))

    def kept(self, result: c.Result, at: float) -> None:
        """To CacheManager."""

    def start(
        self,
        name: str,
        prompt: tuple[int, ...],
        number: int = 1,
        *,
        cached: int = 0,
        output: tuple[int, ...] = (),
        checkpoints: tuple[int, ...] = (),
    ) -> m.Sequence:
        """`checkpoints`: behind so many tokens each."""
        kept = tuple(map(checkpoint, checkpoints))
        request = self.client.request(name, prompt)
        return self.begin(sequence(request, number, cached=cached, output=output, checkpoints=kept))

    def start_salted(self, name: str, prompt: tuple[int, ...], number: int, salt: str) -> m.Sequence:
        return self.begin(sequence(replace(self.client.request(name, prompt), cache_salt=salt), number))

    def start_scoring(self, name: str, prompt: tuple[int, ...], number: int = 1, *, max_tokens: int = 5) -> m.Sequence:
        return self.begin(sequence(self.client.request(name, prompt, score_prompt=2, max_tokens=max_tokens), number))

    def begin(self, started: m.Sequence) -> m.Sequence:
        self.actor.receive(m.StartPrefill(started))
        return started

    def grant(self, budget: int) -> list[c.Command]:
        """Give it a turn; what it has the engine do."""
        self.actor.receive(m.GrantPrefill(budget))
        return self.engine.take()

    def answer(self, tokens: int, *scored: c.ScoredSlice) -> None:
        self.actor.receive(m.EngineReplied(c.Prefilled(tokens, 0.5, scored=scored), at=1.0))

    def find(self, tokens: int, name: str = "r1") -> m.PrefixFound:
        """Tell it that so much of a prompt has been kept."""
        found = m.PrefixFound(RequestId(name), tokens, HitType.PREFIX, (KvHandle(b"found"),))
        self.actor.receive(found)
        return found

    def handled(self, number: int = 1) -> None:
        """CacheManager has told everybody of a checkpoint."""
        self.actor.receive(m.CheckpointHandled(SequenceId(number)))

    def loaded(self, tokens: int, number: int = 1) -> None:
        self.actor.receive(m.EngineReplied(c.KvLoaded(SequenceId(number), tokens), at=1.0))
