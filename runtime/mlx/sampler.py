"""Chooses one token for every row of a batch, each by its own settings, in a few calls for all of them."""

import hashlib
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from runtime.types import Sampling, TokenOutput

UNIFORM_BITS = 23
"""Of a uniform number: so many that u * x < x holds in float32 for every x > 0."""


@dataclass(frozen=True, slots=True)
class SamplerRow:
    """What the sampler has to know of a row."""

    sampling: Sampling
    prompt: Sequence[int]
    output: Sequence[int]


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probabilities of those rows of a batch that asked for them."""

    rows: tuple[int, ...]
    """Their places in the batch."""
    chosen: mx.array
    """Shape [rows]: of the token that was chosen."""
    top_ids: mx.array
    """Shape [rows, n], n the most that any of them asked for; likeliest first."""
    top_values: mx.array

    def arrays(self) -> list[mx.array]:
        return [self.chosen, self.top_ids, self.top_values]

    def read(self) -> Iterator[tuple[int, float, tuple[tuple[int, float], ...]]]:
        """Wait for the values: place, log-probability of the chosen token, and the likeliest (id, log-probability)."""
        chosen = cast("list[float]", self.chosen.tolist())
        ids = cast("list[list[int]]", self.top_ids.tolist())
        values = cast("list[list[float]]", self.top_values.tolist())
        for i, row in enumerate(self.rows):
            yield row, chosen[i], tuple(zip(ids[i], values[i], strict=True))

    def moved(self, places: Mapping[int, int]) -> "Logprobs | None":
        """The same after rows moved from one place to another; those that have no new place are left out."""
        kept = [i for i, row in enumerate(self.rows) if row in places]
        if not kept:
            return None
        which = mx.array(kept)
        rows = tuple(places[self.rows[i]] for i in kept)
        return Logprobs(rows, self.chosen[which], self.top_ids[which], self.top_values[which])


@dataclass(frozen=True, slots=True)
class Choice:
    """The next token of every row of a batch, perhaps not computed yet."""

    tokens: mx.array
    """Shape [batch]."""
    logprobs: tuple[Logprobs, ...] = ()

    def arrays(self) -> list[mx.array]:
        return [self.tokens, *(array for part in self.logprobs for array in part.arrays())]

    def beside(self, other: "Choice") -> "Choice":
        """The choice of a batch whose rows are these and, behind them, those of `other`."""
        here, there = self.tokens.shape[0], other.tokens.shape[0]
        behind = {place: here + place for place in range(there)}
        moved = [part.moved(behind) for part in other.logprobs]
        return Choice(mx.concatenate([self.tokens, other.tokens]), (*self.logprobs, *filter(None, moved)))

    def only(self, keep: Sequence[int]) -> "Choice":
        """The choice of the rows at the places `keep`, in that order."""
        places = {old: new for new, old in enumerate(keep)}
        moved = [part.moved(places) for part in self.logprobs]
        return Choice(self.tokens[mx.array(list(keep))], tuple(filter(None, moved)))

    def read(self, samplings: Sequence[Sampling]) -> list[TokenOutput]:
        """Wait for the choice and return it row by row."""
        token_ids = cast("list[int]", self.tokens.tolist())
        outputs = [TokenOutput(token_id) for token_id in token_ids]
        for part in self.logprobs:
            for row, chosen, top in part.read():
                outputs[row] = TokenOutput(token_ids[row], chosen, top[: samplings[row].top_logprobs])
        return outputs


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing but a request's seed and the token's place in its output, so that
    company, restarts and devices do not change it. Drawn from BLAKE2b (RFC 7693) of both, as little-endian int64."""
    digest = hashlib.blake2b(struct.pack("<QQ", seed & (2**64 - 1), position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> (64 - UNIFORM_BITS)) / (1 << UNIFORM_BITS)


class Sampler:
    """The sampling settings of one composition of the batch, as vectors; make a new one when it changes."""

    def __init__(self, rows: Sequence[SamplerRow], vocab_size: int) -> None:
        settings = [row.sampling for row in rows]
        self._seeds = [each.seed for each in settings]
        self._edited = [i for i, each in enumerate(settings) if _edits(each)]
        self._drawn = [i for i, each in enumerate(settings) if not _greedy(each)]
        self._asked = tuple(i for i, each in enumerate(settings) if each.top_logprobs is not None)
        self._most_asked = max((settings[i].top_logprobs or 0 for i in self._asked), default=0)
        if self._edited:
            self._edits = _Edits([rows[i] for i in self._edited], vocab_size)
        if self._drawn:
            self._draws = _Draws([settings[i] for i in self._drawn])

    def observe(self, tokens: mx.array) -> None:
        """Note the token that every row was given since the sampler was made or last told; shape [batch]."""
        if self._edited:
            self._edits.observe(tokens[mx.array(self._edited)])

    def sample(self, logits: mx.array, positions: Sequence[int]) -> Choice:
        """Choose every row's next token; nothing is computed yet.

        Args:
            logits: shape [batch, vocabulary].
            positions: per row, how many output tokens come before the one to choose.
        """
        logits = logits.astype(mx.float32)
        if self._edited:
            edited = mx.array(self._edited)
            logits[edited] = self._edits.apply(logits[edited])
        tokens = mx.argmax(logits, axis=-1)
        if self._drawn:
            drawn = mx.array(self._drawn)
            numbers = mx.array([uniform(self._seeds[i], positions[i]) for i in self._drawn])
            tokens[drawn] = self._draws.draw(logits[drawn], numbers).astype(tokens.dtype)
        return Choice(tokens, (self._logprobs(logits, tokens),) if self._asked else ())

    def _logprobs(self, logits: mx.array, tokens: mx.array) -> Logprobs:
        asked = mx.array(self._asked)
        logprobs = _log_softmax(logits[asked])
        chosen = mx.take_along_axis(logprobs, tokens[asked][:, None], axis=-1)[:, 0]
        top_ids = mx.argsort(-logprobs, axis=-1)[:, : self._most_asked]
        return Logprobs(self._asked, chosen, top_ids, mx.take_along_axis(logprobs, top_ids, axis=-1))


def _greedy(sampling: Sampling) -> bool:
    return sampling.temperature == 0 or sampling.top_k == 1


def _edits(sampling: Sampling) -> bool:
    penalties = (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty - 1)
    return bool(sampling.logit_bias) or any(penalties)


def _log_softmax(logits: mx.array) -> mx.array:
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def _column(values: list[float]) -> mx.array:
    return mx.array(values, dtype=mx.float32)[:, None]


class _Edits:
    """Penalties and bias of the rows that have any. Arrays are [rows, vocabulary] or [rows, 1]."""

    def __init__(self, rows: Sequence[SamplerRow], vocab_size: int) -> None:
        settings = [row.sampling for row in rows]
        self._presence = _column([each.presence_penalty for each in settings])
        self._frequency = _column([each.frequency_penalty for each in settings])
        self._repetition = _column([each.repetition_penalty for each in settings])
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


class _Draws:
    """Filters and temperature of the rows that draw at random."""

    def __init__(self, settings: Sequence[Sampling]) -> None:
        self._temperature = _column([each.temperature for each in settings])
        self._min_p = _column([each.min_p for each in settings])
        self._top_p = _column([each.top_p for each in settings])
        self._top_k = mx.array([each.top_k for each in settings])[:, None]
        self._needs_order = any(each.top_k > 0 or each.top_p < 1 for each in settings)
        self._needs_min_p = any(each.min_p > 0 for each in settings)

    def draw(self, logits: mx.array, numbers: mx.array) -> mx.array:
        """Invert the cumulative distribution at one uniform number per row; shape [rows]."""
        logprobs = _log_softmax(logits)
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
