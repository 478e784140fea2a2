"""The engine: owns a model and every array there is, and carries out one command at a time."""

import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import assert_never

import mlx.core as mx

from runtime.engine import commands as c
from runtime.engine.host import Beat
from runtime.errors import ModelError, SettingsError
from runtime.mlx import device, grammar, loader, memory
from runtime.mlx.batch import Step
from runtime.mlx.batches import Batches
from runtime.mlx.caches import Held
from runtime.mlx.invariant import made_invariant
from runtime.mlx.kv_folder import KvFolder
from runtime.mlx.kv_keeper import KvKeeper
from runtime.mlx.model_key import model_key
from runtime.mlx.revival import failure_of
from runtime.mlx.scoring import score
from runtime.types import ModelFacts, SequenceId

TURNS_PER_TIDY = 256


class MlxEngine:
    """An `Engine` on MLX. Its arrays belong to the thread that calls it: always the same one."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat
        self._model: loader.LoadedModel
        self._batches: Batches
        self._prefilled: dict[SequenceId, Held] = {}
        """Sequences on their way to a batch."""
        self._finished: dict[SequenceId, Held] = {}
        """Kept caches of rows that ended, until Forget."""
        self._keeper = KvKeeper(None, beat)
        self._turns = 0

    def execute(self, command: c.Command) -> c.Result:
        match command:
            case c.LoadModel():
                return c.Loaded(self._load(command))
            case c.Prefill(slices):
                return self._prefill(slices)
            case c.Decode(steps):
                return self._decode(steps)
            case c.Join(rows):
                self._join(rows)
            case c.Forget(sequence_ids):
                self._forget(sequence_ids)
            case c.StoreKv(sequence_id):
                return self._keeper.store(command, partial(self._held, sequence_id))
            case c.LoadKv():
                return self._load_kv(command)
            case c.DropKv(handles):
                self._keeper.drop(handles)
            case c.ListKv():
                return c.KvListed(self._keeper.list())
            case c.FetchKv(handles):
                return self._keeper.fetch(handles)
            case c.EraseKv(handles):
                self._keeper.erase(handles)
            case c.ClearKv():
                return c.KvListed(self._keeper.clear())
            case c.GiveBack():
                memory.give_back()
            case c.MemoryReport():
                return c.MemoryReported(memory.measure())
            case _:
                assert_never(command)
        return c.Done()

    def _load(self, command: c.LoadModel) -> ModelFacts:
        path = Path(command.path)
        self._beat("loading the model")
        self._model = self._loaded(path, command)
        self._beat("reading the tokeniser")
        grammars = grammar.load(
            path,
            vocab_size=self._model.vocab_size,
            eos_ids=self._model.eos_ids,
            trust_remote_code=command.trust_remote_code,
        )
        self._batches = Batches(self._model, grammars, self._beat)
        if command.cache_dir:
            self._keeper = KvKeeper(self._folder(path, Path(command.cache_dir)), self._beat)
        device.limit_reuse()
        device.stay_resident()
        self._beat("warming up")
        held = Held(self._model.new_caches())
        self._model.feed((0,), held)
        gc.collect()
        gc.freeze()  # The libraries and the model are here to stay; collections need not go through them again.
        return self._model.facts(held.caches)

    def _loaded(self, path: Path, command: c.LoadModel) -> loader.LoadedModel:
        loaded = loader.load(
            path, trust_remote_code=command.trust_remote_code, kv_bits=command.kv_bits, dtype=command.dtype
        )
        loaded = replace(loaded, chunk_tokens=command.chunk_tokens)
        return made_invariant(loaded, self._beat) if command.batch_invariant else loaded

    def _folder(self, path: Path, cache_dir: Path) -> KvFolder:
        """Where pieces of this model's caches outlive the engine."""
        key = model_key(
            path,
            cache_dir=cache_dir,
            dtype=self._model.dtype,
            kv_bits=self._model.kv_bits,
            chunk_tokens=self._model.chunk_tokens,
            invariant=self._model.invariant,
            beat=self._beat,
        )
        try:
            return KvFolder(cache_dir, key, self._beat)
        except SettingsError as error:
            raise ModelError(str(error)) from error  # Starting again would not help.

    def _prefill(self, slices: tuple[c.PrefillSlice, ...]) -> c.Prefilled:
        started = time.perf_counter()
        failed, scored = [], []
        for piece in slices:
            try:
                held = self._begun(piece.sequence_id)
                if piece.targets:
                    scored.append(score(piece, self._model.model, held.caches, self._model.vocab_size))
                    held.tokens += len(piece.token_ids)
                else:
                    self._model.feed(piece.token_ids, held)
            except Exception as error:
                self._prefilled.pop(piece.sequence_id, None)
                failed.append(failure_of(piece.sequence_id, error))
            self._beat("prefilling")
        self._tidy()
        tokens = sum(len(piece.token_ids) for piece in slices)
        return c.Prefilled(tokens, time.perf_counter() - started, tuple(failed), tuple(scored))

    def _begun(self, sequence_id: SequenceId) -> Held:
        """What there is of a sequence on its way to the batch; nothing yet, if it was not heard of before."""
        if sequence_id not in self._prefilled:
            self._prefilled[sequence_id] = Held(self._model.new_caches())
        return self._prefilled[sequence_id]

    def _join(self, rows: tuple[c.JoinRow, ...]) -> None:
        self._batches.join([(row, self._begun(row.sequence_id)) for row in rows])
        for row in rows:
            del self._prefilled[row.sequence_id]

    def _decode(self, steps: int) -> c.Decoded:
        started = time.perf_counter()
        done = Step()
        taken = 0
        while taken < steps and not done.failed and self._batches.busy:
            done += self._batches.step()
            taken += 1
            self._beat("decoding")
        self._finished |= done.kept
        self._tidy()
        return c.Decoded(_by_row(done.rows), taken, time.perf_counter() - started, tuple(done.failed))

    def _tidy(self) -> None:
        """Every so often, have MLX give back the buffers that it keeps for reuse. Not after each command, as mlx-lm
        does in prefill: fresh memory costs more to touch than most commands take."""
        self._turns += 1
        if self._turns % TURNS_PER_TIDY == 0:
            mx.clear_cache()

    def _forget(self, sequence_ids: tuple[SequenceId, ...]) -> None:
        self._batches.forget(sequence_ids)
        for sequence_id in sequence_ids:
            self._prefilled.pop(sequence_id, None)
            self._finished.pop(sequence_id, None)

    def _held(self, sequence_id: SequenceId) -> Held | None:
        """What there is of a sequence, in whatever phase it is."""
        waiting = self._prefilled.get(sequence_id) or self._finished.get(sequence_id)
        return waiting or self._batches.held(sequence_id)

    def _load_kv(self, command: c.LoadKv) -> c.KvLoaded:
        held = self._keeper.load(command, self._model.new_caches())
        if held:
            self._prefilled[command.sequence_id] = held
        return c.KvLoaded(command.sequence_id, held.tokens if held else 0)


def _by_row(rows: Sequence[c.DecodedRow]) -> tuple[c.DecodedRow, ...]:
    """What each row produced in several steps, as one."""
    found: dict[SequenceId, c.DecodedRow] = {}
    for row in rows:
        earlier = found[row.sequence_id].tokens if row.sequence_id in found else ()
        found[row.sequence_id] = replace(row, tokens=earlier + row.tokens)
    return tuple(found.values())
