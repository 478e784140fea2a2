"""KV caches of a batch in which nothing depends on company: every row lies from place 0 on, and is attended to alone.

mlx-lm's own batch caches pad rows on the left, to the longest of them, so that the shape of a row's attention, and with
it the order of its sums, follows from the others. Here rows are kept in the order of their lengths. Those whose lengths
round up to the same number are a *stretch*: they are attended to together, in one shape that is their own.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx_lm.models import base
from mlx_lm.models.cache import KVCache

STRETCH_TOKENS = 64
"""Rows are attended to as if they had so many tokens, or twice as many, and so on: what is too much is masked. Whole
vectors of any processor, so that no element is computed in a vector's rest."""
GROWTH_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring rows of one shape."""

    rows: slice
    tokens: int
    """What they are attended to as."""
    mask: mx.array
    """Which of the tokens are a row's own; shape [rows, 1, 1, tokens]."""


@dataclass(slots=True)
class Stretches:
    """Of all layers of a batch: their rows are equally long, so they are found once a step."""

    lengths: tuple[int, ...] = ()
    found: list[Stretch] = field(default_factory=list)

    def of(self, lengths: tuple[int, ...]) -> list[Stretch]:
        if lengths != self.lengths:
            self.lengths, self.found = lengths, _stretches(lengths)
        return self.found


def _stretches(lengths: Sequence[int]) -> list[Stretch]:
    found, start = [], 0
    for tokens, same in groupby(lengths, key=lambda length: _up(length, STRETCH_TOKENS)):
        own = list(same)
        mask = mx.arange(tokens) < mx.array(own)[:, None]
        found.append(Stretch(slice(start, start + len(own)), tokens, mask[:, None, None]))
        start += len(own)
    return found


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


class AlignedKVCache:
    """One layer's keys and values of a batch: an mlx-lm batch cache. Its rows are in the order of their lengths."""

    def __init__(
        self, keys: mx.array | None, values: mx.array | None, lengths: Sequence[int], stretches: Stretches
    ) -> None:
        """Arrays of shape [rows, heads, room, elements], a row's tokens from place 0 on; None while no row has any."""
        self.keys, self.values = keys, values
        self.lengths = tuple(lengths)
        self._stretches = stretches

    @property
    def offset(self) -> mx.array:
        """How many tokens each row holds: the position of its next one."""
        return mx.array(self.lengths)

    @property
    def state(self) -> list[mx.array]:
        return [] if self.keys is None or self.values is None else [self.keys, self.values]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.state)

    def empty(self) -> bool:
        return self.keys is None

    def make_mask(self, tokens: int, return_array: bool = False, window_size: int | None = None) -> None:
        """None: each stretch has its own.

        Raises:
            NotImplementedError: rows are to be masked otherwise.
        """
        if tokens != 1 or window_size is not None:
            raise NotImplementedError("windows, and more than one token of a row at once")

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Put in one token of every row, of shape [rows, heads, 1, elements]; all there is then."""
        places = mx.array(self.lengths)[:, None, None, None]
        tokens = max(self.lengths) + 1
        self.keys = mx.put_along_axis(_with_room(self.keys, tokens, keys), places, keys, axis=2)
        self.values = mx.put_along_axis(_with_room(self.values, tokens, values), places, values, axis=2)
        self.lengths = tuple(length + 1 for length in self.lengths)
        return self.keys, self.values

    def stretches(self) -> list[Stretch]:
        """The rows by their shapes."""
        return self._stretches.of(self.lengths)

    def filter(self, rows: Sequence[int]) -> None:
        """Keep these rows only, in this order."""
        which = mx.array(list(rows))
        self.lengths = tuple(self.lengths[row] for row in rows)
        if self.keys is not None and self.values is not None:
            room = _up(max(self.lengths) + 1, GROWTH_TOKENS)
            self.keys, self.values = self.keys[:, :, :room][which], self.values[:, :, :room][which]

    def extend(self, other: "AlignedKVCache") -> None:
        """Take the rows of `other` in, shortest first: `order` tells where they are then."""
        lengths = self.lengths + other.lengths
        places = order(lengths)
        self.lengths = tuple(lengths[place] for place in places)
        if self.keys is not None and other.keys is not None:
            self.keys = _sorted(self.keys, other.keys, lengths, places)
        if self.values is not None and other.values is not None:
            self.values = _sorted(self.values, other.values, lengths, places)

    def extract(self, row: int) -> KVCache:
        """A copy of one row as a cache of its own."""
        tokens = self.lengths[row]
        cache = KVCache()
        if tokens:
            # A view would keep the whole batch alive.
            keys, values = (mx.contiguous(each[row : row + 1, :, :tokens]) for each in self.state)
            cache.state = keys, values, tokens
        return cache


def order(lengths: Sequence[int]) -> list[int]:
    """Where rows of these lengths come from in a batch: the shortest first, else as they came."""
    return sorted(range(len(lengths)), key=lambda place: lengths[place])


def merge(rows: Sequence[Sequence[KVCache]]) -> list[AlignedKVCache]:
    """One cache per layer of rows in the order of their lengths. They stay as they are."""
    stretches = Stretches()
    return [_merged(layer, stretches) for layer in zip(*rows, strict=True)]


def _merged(layer: Sequence[KVCache], stretches: Stretches) -> AlignedKVCache:
    lengths = [cache.offset for cache in layer]
    keys, values = _together([c.keys for c in layer], lengths), _together([c.values for c in layer], lengths)
    return AlignedKVCache(keys, values, lengths, stretches)


def _together(arrays: Sequence[mx.array | None], lengths: Sequence[int]) -> mx.array | None:
    like = next((array for array in arrays if array is not None), None)
    if like is None:
        return None
    _, heads, _, width = like.shape
    together = mx.zeros((len(arrays), heads, _up(max(lengths) + 1, GROWTH_TOKENS), width), dtype=like.dtype)
    for row, (array, length) in enumerate(zip(arrays, lengths, strict=True)):
        if array is not None:
            together[row, :, :length] = array[0, :, :length]
    return together


def _sorted(mine: mx.array, theirs: mx.array, lengths: Sequence[int], places: Sequence[int]) -> mx.array | None:
    arrays = [each[row : row + 1] for each in (mine, theirs) for row in range(each.shape[0])]
    return _together([arrays[place] for place in places], [lengths[place] for place in places])


def _with_room(array: mx.array | None, tokens: int, like: mx.array) -> mx.array:
    """`array` with room for so many tokens of every row; a new one for such as `like`, if there is none."""
    rows, heads, _, width = like.shape
    room = 0 if array is None else array.shape[2]
    if array is not None and tokens <= room:
        return array
    more = mx.zeros((rows, heads, _up(tokens, GROWTH_TOKENS) - room, width), dtype=like.dtype)
    return more if array is None else mx.concatenate([array, more], axis=2)


# --- attention ---


def attend(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Any,
    scale: float,
    mask: mx.array | None,
    sinks: mx.array | None = None,
) -> mx.array:
    """mlx-lm's scaled_dot_product_attention; in an aligned cache stretch by stretch. Shapes are [rows, heads, tokens,
    elements].

    Raises:
        NotImplementedError: there is a mask that is not the stretches' own.
    """
    if not isinstance(cache, AlignedKVCache):
        result: mx.array = base.scaled_dot_product_attention(queries, keys, values, cache, scale, mask, sinks)
        return result
    if mask is not None:
        raise NotImplementedError("attention with a mask of the model's own")
    parts = [
        base.scaled_dot_product_attention(
            queries[each.rows],
            keys[each.rows, :, : each.tokens],
            values[each.rows, :, : each.tokens],
            None,
            scale,
            each.mask,
            sinks,
        )
        for each in cache.stretches()
    ]
    return parts[0] if len(parts) == 1 else mx.concatenate(parts)


def teach(model: Module) -> None:
    """Have the model's own code attend so: its modules hold mlx-lm's function by name. Other caches notice nothing."""
    for name in {type(module).__module__ for module in model.modules()}:
        code = sys.modules[name]
        if getattr(code, "scaled_dot_product_attention", None) is base.scaled_dot_product_attention:
            code.scaled_dot_product_attention = attend  # type: ignore[attr-defined]
