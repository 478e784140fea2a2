"""What is done to logits before the choice: penalties for what was said already, and bias."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from runtime.mlx.draw import column
from runtime.types import Sampling


@dataclass(frozen=True, slots=True)
class RowHistory:
    """A row's settings and its tokens so far."""

    sampling: Sampling
    prompt: Sequence[int]
    output: Sequence[int]


class Edits:
    """Penalties and bias of the rows that have any. Arrays are [rows, vocabulary] or [rows, 1]."""

    def __init__(self, rows: Sequence[RowHistory], vocab_size: int) -> None:
        settings = [row.sampling for row in rows]
        self._presence = column([each.presence_penalty for each in settings])
        self._frequency = column([each.frequency_penalty for each in settings])
        self._repetition = column([each.repetition_penalty for each in settings])
        shape = (len(rows), vocab_size)
        self._bias = _scatter(shape, [dict(each.logit_bias) for each in settings])
        self._counts = _scatter(shape, [Counter(row.output) for row in rows])
        self._seen = _scatter(shape, [dict.fromkeys((*row.prompt, *row.output), 1) for row in rows]) > 0
        self._rows = mx.arange(len(rows))

    def observe(self, tokens: mx.array) -> None:
        self._counts = self._counts.at[self._rows, tokens].add(1)
        self._seen[self._rows, tokens] = True

    def apply(self, logits: mx.array) -> mx.array:
        repeated = mx.where(logits > 0, logits / self._repetition, logits * self._repetition)
        logits = mx.where(self._seen, repeated, logits)
        return logits - self._frequency * self._counts - self._presence * (self._counts > 0) + self._bias


def _scatter(shape: tuple[int, int], rows: Sequence[dict[int, float] | dict[int, int]]) -> mx.array:
    """A float32 array of `shape`, zero but for each row's {column: value}."""
    array = mx.zeros(shape, dtype=mx.float32)
    for i, row in enumerate(rows):
        if row:
            array[i, mx.array(list(row))] = mx.array(list(row.values()), dtype=mx.float32)
    return array
