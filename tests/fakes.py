"""What stands in for the real parts: an engine without MLX, a neighbour that records, a way back that remembers."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar, assert_never

from actors import messages as m
from actors.replies import ReplySink
from runtime.engine import commands as c
from runtime.engine.host import Beat
from runtime.errors import ModelError
from runtime.types import (
    FinishReason,
    KvHandle,
    KvPiece,
    MemoryUsage,
    ModelFacts,
    RequestId,
    Sampling,
    SequenceId,
    TokenOutput,
)

M = TypeVar("M")

FACTS = ModelFacts(
    context_tokens=4096,
    declared_context_tokens=4096,
    vocab_size=1000,
    kv_bytes_per_token=10,
    batchable=True,
    trimmable=True,
    device="cpu",
    dtype="float32",
    weight_bytes=0,
    memory_bytes=1 << 30,
    free_bytes=1 << 30,
    padding_ratio=2.0,
)


def fake_token(history: Iterable[int], vocab_size: int = FACTS.vocab_size) -> int:
    """What FakeEngine says after `history`: any function of all of it will do. Never below 10, so that tests
    have ids to use for themselves."""
    value = 17
    for token_id in history:
        value = (value * 31 + token_id + 7) % 1_000_003
    return 10 + value % (vocab_size - 10)


def fake_output(prompt: Iterable[int], tokens: int) -> list[int]:
    """The ids FakeEngine gives after `prompt`."""
    history = list(prompt)
    start = len(history)
    for _ in range(tokens):
        history.append(fake_token(history))
    return history[start:]


def fake_scored(prefix: Iterable[int], target: int, top: int, vocab_size: int = FACTS.vocab_size) -> TokenOutput:
    """How likely FakeEngine finds `target` behind `prefix`: most of all what it would say, then the ids above it."""
    best = fake_token(prefix, vocab_size)
    likeliest = tuple(((best + place) % vocab_size, -1.0 - place) for place in range(top))
    return TokenOutput(target, -1.0 - (target - best) % vocab_size, likeliest)


@dataclass
class FakeRow:
    history: list[int]
    produced: int
    sampling: Sampling
    keep_kv: bool
    apart: bool
    again: list[int] = field(default_factory=list)
    """Output of an earlier life, to be fed step by step."""


@dataclass
class FakeEngine:
    """Keeps the promises of `Engine` without MLX: a KV cache is the list of ids it holds, and the next token
    a function of the history. It checks what the real one cannot: that every history is in the cache, and that what
    is kept of a sequence are its own ids."""

    facts: ModelFacts = FACTS
    before: Callable[[c.Command], None] = lambda _command: None
    """Called with each command in the engine's thread: to raise, to wait, to look."""
    caches: dict[SequenceId, list[int]] = field(default_factory=dict)
    stored: dict[KvHandle, KvPiece] = field(default_factory=dict)
    disk: dict[KvHandle, KvPiece] | None = None
    """The pieces on disk, least recently used first. Give it to the next engine, and they outlive this one; without it,
    LoadModel makes one where it names a folder."""
    disk_full: bool = False
    """Whether nothing can be written."""
    stuck: set[KvHandle] = field(default_factory=set)
    """Pieces on disk that ClearKv cannot delete."""
    chunk_tokens: int = 0
    """See LoadModel; it checks that nothing is computed, kept or served otherwise."""
    prefilled: dict[SequenceId, int] = field(default_factory=dict)
    """How many ids of each sequence were computed as prompts are."""
    unwritten: set[KvHandle] = field(default_factory=set)
    """What is to be told with the next Stored."""
    rows: dict[SequenceId, FakeRow] = field(default_factory=dict)
    finished: dict[SequenceId, list[int]] = field(default_factory=dict)

    def execute(self, command: c.Command) -> c.Result:
        self.before(command)
        match command:
            case c.LoadModel():
                return self._load(command)
            case c.Prefill(slices):
                scored = [self._prefill(piece) for piece in slices]
                tokens = sum(len(piece.token_ids) for piece in slices)
                return c.Prefilled(tokens, 0.001, scored=tuple(filter(None, scored)))
            case c.Join(rows):
                for row in rows:
                    self._join(row)
            case c.Decode(steps):
                return self._decode(steps)
            case c.Forget(sequence_ids):
                for sequence_id in sequence_ids:
                    for place in (self.caches, self.rows, self.finished):
                        place.pop(sequence_id, None)
            case c.StoreKv(sequence_id, pieces):
                if self.chunk_tokens:
                    made = self.prefilled.get(sequence_id, 0) // self.chunk_tokens * self.chunk_tokens
                    assert all(piece.stop <= made for piece in pieces), "this was not computed in whole chunks"
                self._store(self._held(sequence_id), pieces)
                return self._stored(sequence_id, [piece.handle for piece in pieces])
            case c.LoadKv():
                return self._load_kv(command)
            case c.DropKv(handles):
                for handle in handles:
                    self.stored.pop(handle, None)
            case c.ListKv():
                return c.KvListed(self._listed())
            case c.FetchKv(handles):
                self._fetch(handles)
                return self._stored(None, handles)
            case c.EraseKv(handles):
                for handle in handles:
                    (self.disk or {}).pop(handle, None)
            case c.ClearKv():
                self._clear()
                return c.KvListed(self._listed())
            case c.GiveBack():
                pass
            case c.MemoryReport():
                return c.MemoryReported(MemoryUsage(1, 2, 3, 4, 100, 0.5))
            case _:
                assert_never(command)
        return c.Done()

    def _load(self, command: c.LoadModel) -> c.Loaded:
        if command.path == "missing":
            raise ModelError("there is no model at missing")
        if command.cache_dir and self.disk is None:
            self.disk = {}
        self.chunk_tokens = command.chunk_tokens
        return c.Loaded(self.facts)

    def _held(self, sequence_id: SequenceId) -> list[int]:
        """The ids whose keys and values there are of a sequence."""
        if sequence_id in self.rows:
            return self.rows[sequence_id].history[:-1]
        return self.caches.get(sequence_id) or self.finished.get(sequence_id, [])

    def _store(self, held: list[int], pieces: tuple[KvPiece, ...]) -> None:
        for piece in pieces:
            there = piece.stop <= len(held) if self.facts.trimmable else piece.stop == len(held)
            if there and piece.handle not in self.stored:
                assert tuple(held[piece.start : piece.stop]) == piece.token_ids, "these are not the sequence's ids"
                self._keep(piece)
            self._write(piece)

    def _keep(self, piece: KvPiece) -> None:
        assert all(other.handle != piece.parent or other.stop == piece.start for other in self.stored.values())
        self.stored[piece.handle] = piece

    def _write(self, piece: KvPiece) -> None:
        if self.disk is None or piece.handle in self.disk:
            return
        if piece.handle in self.stored and not self.disk_full:
            self.disk[piece.handle] = piece
        else:
            self.unwritten.add(piece.handle)

    def _fetch(self, handles: tuple[KvHandle, ...]) -> None:
        for handle in handles:
            if self.disk and handle in self.disk:
                self.stored[handle] = self.disk[handle] = self.disk.pop(handle)

    def _clear(self) -> None:
        self.stored.clear()
        if self.disk:
            for handle in self.disk.keys() - self.stuck:
                del self.disk[handle]

    def _listed(self) -> tuple[tuple[KvPiece, int], ...]:
        return tuple((piece, self._size(piece)) for piece in (self.disk or {}).values())

    def _stored(self, sequence_id: SequenceId | None, handles: Sequence[KvHandle]) -> c.Stored:
        sizes = tuple((handle, self._size(self.stored[handle])) for handle in handles if handle in self.stored)
        missing = tuple(handle for handle in handles if handle not in self.stored)
        unwritten, self.unwritten = tuple(self.unwritten), set()
        return c.Stored(sequence_id, sizes, missing, unwritten)

    def _size(self, piece: KvPiece) -> int:
        return len(piece.token_ids) * self.facts.kv_bytes_per_token

    def _load_kv(self, command: c.LoadKv) -> c.KvLoaded:
        if any(handle not in self.stored for handle in command.handles):
            return c.KvLoaded(command.sequence_id, 0)
        held: list[int] = []
        for handle in command.handles:
            assert self.stored[handle].start == len(held), "the pieces do not follow each other"
            held += self.stored[handle].token_ids
        assert 0 < command.tokens <= len(held), "there is no such beginning"
        assert self.facts.trimmable or command.tokens == len(held), "these caches cannot be cut"
        assert command.sequence_id not in self.rows, "the sequence is running"
        assert not self.chunk_tokens or command.tokens % self.chunk_tokens == 0, "no chunk ends there"
        self.prefilled[command.sequence_id] = command.tokens
        self.caches[command.sequence_id] = held[: command.tokens]
        return c.KvLoaded(command.sequence_id, command.tokens)

    def _prefill(self, piece: c.PrefillSlice) -> c.ScoredSlice | None:
        cache = self.caches.setdefault(piece.sequence_id, [])
        before = len(cache)
        if self.chunk_tokens:
            assert before % self.chunk_tokens == 0, "a chunk begins where the last one ends"
            assert len(piece.token_ids) <= self.chunk_tokens, "this is more than a chunk"
        self.prefilled[piece.sequence_id] = before + len(piece.token_ids)
        cache.extend(piece.token_ids)
        if not piece.targets:
            return None
        scored = [
            fake_scored(cache[: before + place], target, piece.top_logprobs, self.facts.vocab_size)
            for place, target in enumerate(piece.targets, start=1)
        ]
        return c.ScoredSlice(piece.sequence_id, tuple(scored))

    def _join(self, row: c.JoinRow) -> None:
        cached = self.caches.pop(row.sequence_id, [])
        end = row.prompt_tokens if self.chunk_tokens else len(row.history)
        assert tuple(cached) == row.history[: end - 1], "the cache does not hold this row's history"
        history, again = list(row.history[:end]), list(row.history[end:])
        produced = end - row.prompt_tokens
        self.rows[row.sequence_id] = FakeRow(history, produced, row.sampling, row.keep_kv, row.apart, again)

    def _decode(self, steps: int) -> c.Decoded:
        decoded = []
        for sequence_id, row in list(self.rows.items()):
            tokens: list[TokenOutput] = []
            finish = None
            if row.again:
                row.history.append(row.again.pop(0))
                row.produced += 1
                continue
            kept = 0
            while finish is None and len(tokens) < steps:
                tokens.append(self._produce(row))
                row.history.append(tokens[-1].token_id)
                row.produced += 1
                if tokens[-1].token_id in row.sampling.stop_ids:
                    finish = FinishReason.STOP
                elif row.produced >= row.sampling.max_tokens:
                    finish = FinishReason.LENGTH
            if finish:
                del self.rows[sequence_id]
                if row.keep_kv:
                    self.finished[sequence_id] = row.history[:-1]
                    kept = len(row.history) - 1
            decoded.append(c.DecodedRow(sequence_id, tuple(tokens), finish, kept))
        return c.Decoded(tuple(decoded), steps if decoded else 0, 0.001)

    def _produce(self, row: FakeRow) -> TokenOutput:
        token_id = fake_token(row.history, self.facts.vocab_size)
        if row.sampling.top_logprobs is None:
            return TokenOutput(token_id)
        return fake_scored(row.history, token_id, row.sampling.top_logprobs, self.facts.vocab_size)


@dataclass
class DisturbedEngine(FakeEngine):
    """One whose rows with an odd first id say something else while they share a batch, as long as it is `disturbed`."""

    disturbed: bool = True
    shared: bool = False
    """Whether rows share a batch in this step."""

    def _decode(self, steps: int) -> c.Decoded:
        self.shared = sum(not row.apart for row in self.rows.values()) > 1
        return super()._decode(steps)

    def _produce(self, row: FakeRow) -> TokenOutput:
        token = super()._produce(row)
        if self.disturbed and self.shared and not row.apart and row.history[0] % 2:
            return replace(token, token_id=token.token_id ^ 1)
        return token


def make_fake_engine(_beat: Beat) -> FakeEngine:
    """A factory, as hosts want it."""
    return FakeEngine()


class Gate:
    """Holds an engine command back until the test lets it through; the test waits for it to arrive, too."""

    def __init__(self, kind: type[c.Command]) -> None:
        self._kind = kind
        self._open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, command: c.Command) -> None:
        if isinstance(command, self._kind):
            self.reached.set()
            assert self._open.wait(10), "the test never opened the gate"

    def open(self) -> None:
        self._open.set()


class Recorder(Generic[M]):
    """A Ref that remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[M] = []

    def tell(self, message: M) -> None:
        self.heard.append(message)

    def take(self) -> list[M]:
        """What it was told since last asked."""
        taken, self.heard = self.heard, []
        return taken


class RecordingEngine:
    """An EngineRef that remembers commands and answers nothing."""

    def __init__(self) -> None:
        self.commands: list[c.Command] = []

    def submit(self, command: c.Command, deliver: Callable[[c.Result, float], None]) -> None:
        self.commands.append(command)

    def take(self) -> list[c.Command]:
        taken, self.commands = self.commands, []
        return taken


def no_reply(_result: c.Result, _at: float) -> None:
    """A Deliver for actors whose engine answers nothing."""


@dataclass
class Client:
    """A client that remembers what it is told; `request()` makes requests whose sinks lead to it."""

    heard: list[m.Reply] = field(default_factory=list)
    capacity: int = 64
    sinks: dict[str, ReplySink] = field(default_factory=dict)

    def request(
        self,
        name: str = "r1",
        prompt: Iterable[int] = (1, 2, 3),
        *,
        arrived_at: float = 0.0,
        deadline: float = 1e9,
        report_every: int = 1,
        score_prompt: int | None = None,
        background: bool = False,
        leaves_kv: bool = True,
        apart: bool = False,
        **sampling: object,
    ) -> m.Request:
        """Greedy, five tokens; keyword arguments go to Sampling."""
        self.sinks[name] = ReplySink(self.heard.append, self.capacity)
        return m.Request(
            request_id=RequestId(name),
            prompt_ids=tuple(prompt),
            sampling=replace(Sampling(max_tokens=5, temperature=0.0), **sampling),  # type: ignore[arg-type]
            arrived_at=arrived_at,
            deadline=deadline,
            sink=self.sinks[name],
            report_every=report_every,
            score_prompt=score_prompt,
            background=background,
            leaves_kv=leaves_kv,
            apart=apart,
        )

    def last_words(self) -> list[m.LastWord]:
        return [reply for reply in self.heard if isinstance(reply, m.LastWord)]
