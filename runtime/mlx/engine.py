"""The engine: owns a model and every array there is, and carries out one command at a time."""

import time
from pathlib import Path
from typing import assert_never

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache

from runtime.engine import commands as c
from runtime.engine.host import Beat
from runtime.mlx import device, loader, memory
from runtime.mlx.batch import Caches, DecodeBatch
from runtime.types import KvHandle, ModelFacts, SequenceId

STEPS_PER_TIDY = 256
"""Decode steps after which MLX gives back buffers that it keeps for reuse, as mlx-lm's own loop does."""


class MlxEngine:
    """An `Engine` on MLX. Its arrays belong to the thread that calls it: always the same one."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat
        self._model: loader.LoadedModel
        self._batch: DecodeBatch
        self._prefilled: dict[SequenceId, Caches] = {}
        """Sequences on their way to the batch."""
        self._joining: list[c.JoinRow] = []
        self._finished: dict[SequenceId, Caches] = {}
        """Kept caches of rows that ended, until StoreKv or Forget."""
        self._stored: dict[KvHandle, Caches] = {}
        self._steps = 0

    def execute(self, command: c.Command) -> c.Result:
        match command:
            case c.LoadModel(path, trust_remote_code):
                return c.Loaded(self._load(Path(path), trust_remote_code))
            case c.Prefill(slices):
                return self._prefill(slices)
            case c.Decode(steps):
                return self._decode(steps)
            case c.Join(rows):
                self._joining += rows
            case c.Forget(sequence_ids):
                self._forget(sequence_ids)
            case c.StoreKv(sequence_id, handle):
                self._stored[handle] = self._finished.pop(sequence_id)
            case c.LoadKv(handle, sequence_id, tokens):
                self._prefilled[sequence_id] = _beginning(self._stored[handle], tokens)
            case c.DropKv(handles):
                for handle in handles:
                    self._stored.pop(handle, None)
            case c.MemoryReport():
                return c.MemoryReported(memory.measure())
            case _:
                assert_never(command)
        return c.Done()

    def _load(self, path: Path, trust_remote_code: bool) -> ModelFacts:
        self._beat("loading the model")
        self._model = loader.load(path, trust_remote_code=trust_remote_code)
        self._beat("warming up")
        self._batch = DecodeBatch(self._model.model, self._model.vocab_size)
        caches = self._new_caches()
        self._feed((0,), caches)
        return ModelFacts(
            context_tokens=self._model.context_tokens,
            vocab_size=self._model.vocab_size,
            kv_bytes_per_token=sum(map(_bytes_per_token, caches)),
            batchable=all(hasattr(cache, "merge") for cache in caches),
            trimmable=can_trim_prompt_cache(caches),
            device=device.name(),
            dtype=self._model.dtype,
            weight_bytes=self._model.weight_bytes,
            memory_bytes=device.memory_bytes(),
        )

    def _prefill(self, slices: tuple[c.PrefillSlice, ...]) -> c.Prefilled:
        started = time.perf_counter()
        for piece in slices:
            caches = self._prefilled.setdefault(piece.sequence_id, self._new_caches())
            self._feed(piece.token_ids, caches)
            self._beat("prefilling")
        mx.clear_cache()
        return c.Prefilled(sum(len(piece.token_ids) for piece in slices), time.perf_counter() - started)

    def _feed(self, token_ids: tuple[int, ...], caches: Caches) -> None:
        """Put ids into a cache. Logits are never looked at, so they are never computed."""
        self._model.model(mx.array([token_ids]), cache=caches)
        mx.eval([cache.state for cache in caches])

    def _decode(self, steps: int) -> c.Decoded:
        started = time.perf_counter()
        self._let_in()
        rows: dict[SequenceId, c.DecodedRow] = {}
        taken = 0
        while taken < steps and len(self._batch):
            decoded, kept = self._batch.step()
            self._finished |= kept
            for row in decoded:
                earlier = rows[row.sequence_id].tokens if row.sequence_id in rows else ()
                rows[row.sequence_id] = c.DecodedRow(row.sequence_id, earlier + row.tokens, row.finish)
            taken += 1
            self._beat("decoding")
        self._tidy(taken)
        return c.Decoded(tuple(rows.values()), taken, time.perf_counter() - started)

    def _let_in(self) -> None:
        joining, self._joining = self._joining, []
        if joining:
            caches = [self._prefilled.pop(row.sequence_id, []) or self._new_caches() for row in joining]
            self._batch.join(joining, caches)

    def _tidy(self, steps: int) -> None:
        if self._steps // STEPS_PER_TIDY != (self._steps + steps) // STEPS_PER_TIDY:
            mx.clear_cache()
        self._steps += steps

    def _forget(self, sequence_ids: tuple[SequenceId, ...]) -> None:
        self._batch.forget(sequence_ids)
        self._joining = [row for row in self._joining if row.sequence_id not in sequence_ids]
        for sequence_id in sequence_ids:
            self._prefilled.pop(sequence_id, None)
            self._finished.pop(sequence_id, None)

    def _new_caches(self) -> Caches:
        caches: Caches = make_prompt_cache(self._model.model)
        return caches


def _beginning(caches: Caches, tokens: int) -> Caches:
    """New caches with the first `tokens` tokens of `caches`, which stay as they are.

    Buffers are shared until one side writes. The array objects must not be: assigning to a slice changes the object
    that it is done on, in whosever hands it is.
    """
    copies = [type(cache).from_state(tree_map(_another, cache.state)) for cache in caches]
    for cache in copies:
        cache.trim(cache.size() - tokens)
    return copies


def _another(leaf: object) -> object:
    return leaf[...] if isinstance(leaf, mx.array) else leaf


def _bytes_per_token(cache: object) -> int:
    """What one more token costs in a layer's cache, of which one holds a token already. Caches without keys keep a
    state of fixed size, and cost nothing more."""
    keys, values = getattr(cache, "keys", None), getattr(cache, "values", None)
    if not isinstance(keys, mx.array) or not isinstance(values, mx.array):
        return 0
    return int(keys.nbytes // keys.shape[2] + values.nbytes // values.shape[2])
