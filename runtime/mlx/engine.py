"""The engine: owns a model and every array there is, and carries out one command at a time."""

import gc
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import assert_never

import mlx.core as mx

from runtime.engine import commands as c
from runtime.engine.host import Beat
from runtime.errors import ModelError, SettingsError
from runtime.mlx import device, grammar, loader, memory
from runtime.mlx.batch import DecodeBatch, Step
from runtime.mlx.caches import Held
from runtime.mlx.kv_folder import KvFolder
from runtime.mlx.kv_keeper import KvKeeper
from runtime.mlx.model_key import model_key
from runtime.mlx.revival import failure_of, revive
from runtime.mlx.scoring import score
from runtime.types import ModelFacts, SequenceId

log = logging.getLogger("troupe.engine")

REVIVAL_CHUNK = 512
"""Tokens per forward pass when a history is computed again."""
TURNS_PER_TIDY = 256


class MlxEngine:
    """An `Engine` on MLX. Its arrays belong to the thread that calls it: always the same one."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat
        self._model: loader.LoadedModel
        self._grammars: grammar.Grammars
        self._batches: list[DecodeBatch] = []
        """More than one only where padding costs more than it saves: see device.may_share_a_batch."""
        self._prefilled: dict[SequenceId, Held] = {}
        """Sequences on their way to the batch."""
        self._joining: list[c.JoinRow] = []
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
                for row in rows:
                    self._begun(row.sequence_id)
                self._joining += rows
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
        self._model = loader.load(path, trust_remote_code=command.trust_remote_code, kv_bits=command.kv_bits)
        self._beat("reading the tokeniser")
        self._grammars = grammar.load(
            path,
            vocab_size=self._model.vocab_size,
            eos_ids=self._model.eos_ids,
            trust_remote_code=command.trust_remote_code,
        )
        if command.cache_dir:
            self._keeper = KvKeeper(self._folder(path, Path(command.cache_dir)), self._beat)
        self._beat("warming up")
        held = Held(self._model.new_caches())
        self._feed((0,), held)
        gc.collect()
        gc.freeze()  # The libraries and the model are here to stay; collections need not go through them again.
        return self._model.facts(held.caches)

    def _folder(self, path: Path, cache_dir: Path) -> KvFolder:
        """Where pieces of this model's caches outlive the engine."""
        key = model_key(
            path, cache_dir=cache_dir, dtype=self._model.dtype, kv_bits=self._model.kv_bits, beat=self._beat
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
                    self._feed(piece.token_ids, held)
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

    def _feed(self, token_ids: tuple[int, ...], held: Held) -> None:
        """Put ids into a sequence's caches. Logits are never looked at, so they are never computed."""
        self._model.model(mx.array([token_ids]), cache=held.caches)
        mx.eval([cache.state for cache in held.caches])
        held.tokens += len(token_ids)

    def _decode(self, steps: int) -> c.Decoded:
        started = time.perf_counter()
        done = Step()
        taken = 0
        while taken < steps and not done.failed and (self._batches or self._joining):
            done += self._step()
            taken += 1
            self._beat("decoding")
        self._tidy()
        return c.Decoded(_by_row(done.rows), taken, time.perf_counter() - started, tuple(done.failed))

    def _step(self) -> Step:
        """One step of every batch. Rows that run already get their tokens before others join them: the first step of
        those is not waited for."""
        step = Step()
        for place in range(len(self._batches)):
            step += self._guarded(place, DecodeBatch.step)
        joining, self._joining = self._joining, []
        for place, rows in self._homes(joining).items():
            ran_before = bool(step.rows)
            step += self._guarded(place, partial(self._join, rows), rows)
            if not ran_before:
                step += self._guarded(place, DecodeBatch.first_step)
        self._batches = [batch for batch in self._batches if len(batch)]
        self._finished |= step.kept
        return step

    def _join(self, rows: Sequence[c.JoinRow], batch: DecodeBatch) -> Step:
        batch.join(rows, [self._prefilled.pop(row.sequence_id).caches for row in rows])
        return Step()

    def _homes(self, rows: Sequence[c.JoinRow]) -> dict[int, list[c.JoinRow]]:
        """Which batch each row goes to, by its place: one of rows about as long, or a new one."""
        lengths = [batch.longest for batch in self._batches]
        homes: dict[int, list[c.JoinRow]] = {}
        for row in rows:
            length = len(row.history)
            place = next((i for i, other in enumerate(lengths) if device.may_share_a_batch(length, other)), None)
            if place is None:
                place = len(lengths)
                lengths.append(length)
                self._batches.append(self._batch_of([]))
            homes.setdefault(place, []).append(row)
        return homes

    def _guarded(self, place: int, work: Callable[[DecodeBatch], Step], newcomers: Sequence[c.JoinRow] = ()) -> Step:
        """What `work` gives; if it raises, the batch is made anew from what its rows have handed out."""
        batch = self._batches[place]
        try:
            return work(batch)
        except Exception as error:
            log.warning("a decode step raised %s: %s; making the batch anew", type(error).__name__, error)
            rows = {row.sequence_id: row for row in (*newcomers, *batch.rows())}
            self._batches[place], step = revive(list(rows.values()), self._batch_of)
            if len(step.failed) == len(rows) > 1:
                raise  # It is not the rows: the engine itself is broken.
            return step

    def _batch_of(self, rows: Sequence[c.JoinRow]) -> DecodeBatch:
        """A batch of these rows, their caches computed from their histories."""
        batch = DecodeBatch(self._model.model, self._model.vocab_size, self._grammars)
        everyones = []
        for row in rows:
            held = Held(self._model.new_caches())
            for start in range(0, len(row.history) - 1, REVIVAL_CHUNK):
                self._feed(row.history[start : min(start + REVIVAL_CHUNK, len(row.history) - 1)], held)
                self._beat("making the batch anew")
            everyones.append(held.caches)
        if rows:
            batch.join(rows, everyones)
        return batch

    def _tidy(self) -> None:
        """Every so often, have MLX give back the buffers that it keeps for reuse. Not after each command, as mlx-lm
        does in prefill: fresh memory costs more to touch than most commands take."""
        self._turns += 1
        if self._turns % TURNS_PER_TIDY == 0:
            mx.clear_cache()

    def _forget(self, sequence_ids: tuple[SequenceId, ...]) -> None:
        for batch in self._batches:
            batch.forget(sequence_ids)
        self._joining = [row for row in self._joining if row.sequence_id not in sequence_ids]
        for sequence_id in sequence_ids:
            self._prefilled.pop(sequence_id, None)
            self._finished.pop(sequence_id, None)

    def _held(self, sequence_id: SequenceId) -> Held | None:
        """What there is of a sequence, in whatever phase it is."""
        in_batches = (batch.held(sequence_id) for batch in self._batches)
        waiting = self._prefilled.get(sequence_id) or self._finished.get(sequence_id)
        return waiting or next(filter(None, in_batches), None)

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
