"""Random choice: filters, temperature, and one number per token that depends on nothing but seed and position."""

import hashlib
import struct
from collections.abc import Sequence

import mlx.core as mx

from runtime.types import Sampling

UNIFORM_BITS = 23
"""Of a uniform number: so many that u * x < x holds in float32 for every x > 0."""


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing but a request's seed and the token's place in its output, so that
    company, restarts and devices do not change it. Drawn from BLAKE2b (RFC 7693) of both, as little-endian int64."""
    digest = hashlib.blake2b(struct.pack("<QQ", seed & (2**64 - 1), position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> (64 - UNIFORM_BITS)) / (1 << UNIFORM_BITS)


def log_softmax(logits: mx.array) -> mx.array:
    """Normalised log-probabilities along the last axis."""
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def likeliest(logits: mx.array, n: int) -> mx.array:
    """The ids of the `n` greatest logits of each row, greatest first; shape [rows, n].

    A partition, because sorting a whole vocabulary takes ten times as long on the CPU.
    """
    if n == 0:
        return mx.zeros((logits.shape[0], 0), dtype=mx.uint32)
    ids = mx.argpartition(logits, -n, axis=-1)[:, -n:]
    order = mx.argsort(-mx.take_along_axis(logits, ids, axis=-1), axis=-1)
    return mx.take_along_axis(ids, order, axis=-1)


def column(values: list[float]) -> mx.array:
    """One value per row, shape [rows, 1]."""
    return mx.array(values, dtype=mx.float32)[:, None]


class Draws:
    """Filters and temperature of the rows that draw at random."""

    def __init__(self, settings: Sequence[Sampling]) -> None:
        self._temperature = column([each.temperature for each in settings])
        self._min_p = column([each.min_p for each in settings])
        self._top_p = column([each.top_p for each in settings])
        self._top_k = mx.array([each.top_k for each in settings])[:, None]
        self._needs_order = any(each.top_k > 0 or each.top_p < 1 for each in settings)
        self._needs_min_p = any(each.min_p > 0 for each in settings)

    def draw(self, logits: mx.array, numbers: mx.array) -> mx.array:
        """Invert the cumulative distribution at one uniform number per row; shape [rows]."""
        logprobs = log_softmax(logits)
        best = logprobs.max(axis=-1, keepdims=True)
        weights = mx.exp((logprobs - best) / self._temperature)
        weights = mx.where(logprobs >= self._least(logprobs, best), weights, 0.0)
        cumulative = mx.cumsum(weights, axis=-1)
        reached = (cumulative > numbers[:, None] * cumulative[:, -1:]) & (weights > 0)
        # A parallel sum need not grow from place to place; should no place be reached, take the likeliest.
        return mx.where(reached.any(axis=-1), mx.argmax(reached, axis=-1), mx.argmax(logprobs, axis=-1))

    def _least(self, logprobs: mx.array, best: mx.array) -> mx.array:
        """The lowest log-probability that all filters let through; shape [rows, 1]. Equal ones pass together."""
        least = mx.full(best.shape, -mx.inf)
        if self._needs_min_p:
            least = mx.maximum(least, best + mx.log(self._min_p))
        if self._needs_order:
            ordered = -mx.sort(-logprobs, axis=-1)
            mass_above = mx.cumsum(mx.exp(ordered), axis=-1, inclusive=False)
            in_nucleus = (mass_above < self._top_p).sum(axis=-1, keepdims=True)
            in_nucleus = mx.where(self._top_p < 1, mx.maximum(in_nucleus, 1), logprobs.shape[-1])
            kept = mx.where(self._top_k > 0, mx.minimum(in_nucleus, self._top_k), in_nucleus)
            least = mx.maximum(least, mx.take_along_axis(ordered, kept - 1, axis=-1))
        return least
