"""A Scheduler among recording neighbours."""

from actors import messages as m
from actors.scheduler import LIVES_APART, Scheduler
from runtime.types import CancelCause, HitType, RequestId, RuntimeMode, SequenceId, TokenOutput
from tests.fakes import Client, Recorder

USAGE = m.Usage(3, 0, 5)
FIRST_ID = SequenceId(LIVES_APART)
"""Of the sequences in the first life of the engine room."""


class Stage:
    """In the first life, with at most so many on stage."""

    def __init__(
        self,
        max_concurrency: int = 2,
        *,
        epoch: int = 1,
        mode: RuntimeMode = RuntimeMode.BATCHED,
        mode_threshold: int = 2,
        may_serialise: bool = True,
        serialised: bool = False,
    ) -> None:
        self.epoch = epoch
        self.admitter = Recorder[m.RequestStaged | m.RequestPreempted | m.RequestClosed]()
        self.cache = Recorder[m.LeaseKv | m.ReleaseKv]()
        self.prefill = Recorder[m.StartPrefill | m.GrantPrefill | m.Preempt | m.Cancel]()
        self.decode = Recorder[m.GrantDecode]()
        self.client = Client()
        self.actor = Scheduler(
            epoch=epoch,
            max_concurrency=max_concurrency,
            mode=mode,
            mode_threshold=mode_threshold,
            may_serialise=may_serialise,
            serialised=serialised,
            prefill_chunk_tokens=64,
            max_gap_ratio=2.0,
            request_admitter=self.admitter,
            cache_manager=self.cache,
            prefill_worker=self.prefill,
            decode_worker=self.decode,
        )

    def enqueue(self, *names: str, arrived_at: float = 0.0) -> None:
        for name in names:
            self.actor.receive(m.Enqueue(self.epoch, self.client.request(name, arrived_at=arrived_at), ()))

    def enqueue_background(self, *names: str, leaves_kv: bool = True, apart: bool = False) -> None:
        for name in names:
            request = self.client.request(name, background=True, leaves_kv=leaves_kv, apart=apart)
            self.actor.receive(m.Enqueue(self.epoch, request, ()))

    def asked(self) -> list[str]:
        """Who was to be leased since last asked."""
        return [each.request.request_id for each in self.cache.take() if isinstance(each, m.LeaseKv)]

    def let_turns_pass(self, turns: int) -> None:
        """Those on stage decode."""
        for name in self.actor.snapshot().prefilling:
            self.actor.receive(m.SequencePrefilled(RequestId(name)))
            self.actor.receive(m.PrefillTurnEnded(1, 0.1))
        for _ in range(turns):
            self.actor.receive(m.DecodeTurnEnded(1, 0.1))

    def lease(self, name: str, cached_tokens: int = 0) -> None:
        hit_type = HitType.PREFIX if cached_tokens else HitType.MISS
        self.actor.receive(m.KvLeased(RequestId(name), cached_tokens, hit_type))

    def stage(self, name: str, *, arrived_at: float = 0.0, cached_tokens: int = 0) -> m.Sequence:
        """Someone comes on stage; what PrefillWorker was given."""
        self.enqueue(name, arrived_at=arrived_at)
        return self.start(name, cached_tokens)

    def start(self, name: str, cached_tokens: int = 0) -> m.Sequence:
        """The lease of somebody in line is granted."""
        before = len(self.prefill.heard)
        self.lease(name, cached_tokens)
        (sequence,) = [each.sequence for each in self.prefill.heard[before:] if isinstance(each, m.StartPrefill)]
        return sequence

    def cancel(self, name: str) -> None:
        self.actor.receive(m.Cancel(RequestId(name), CancelCause.CLIENT_LEFT))

    def end(self, name: str, number: int = 0, held: tuple[int, ...] = ()) -> None:
        """The worker says that the sequence of that number has ended."""
        self.actor.receive(m.SequenceEnded(RequestId(name), SequenceId(FIRST_ID + number), USAGE, held))

    def preempted(self, sequence: m.Sequence, *output: int, unsent: int = 0) -> None:
        """A worker gives it back with so much output, the last `unsent` of it not taken yet."""
        tokens = tuple(TokenOutput(token_id) for token_id in output)
        held = (*sequence.request.prompt_ids, *output)[:-1]
        self.actor.receive(m.SequencePreempted(sequence, output, tokens[len(tokens) - unsent :], held))

    def preempts(self) -> list[str]:
        """Who was told to go back in line since last asked."""
        return [each.request_id for each in self.prefill.take() if isinstance(each, m.Preempt)]
