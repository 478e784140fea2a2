"""What is done to mlx-lm's KV caches here: make, look into and merge them, put batches together, count their bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.utils import tree_flatten
from mlx_lm.models.cache import BatchKVCache, CacheList, KVCache, QuantizedKVCache, make_prompt_cache

from runtime.mlx import aligned, quantised

Caches = list[Any]
"""One mlx-lm cache object per layer."""


@dataclass(slots=True)
class Held:
    """The caches of one sequence, and how many tokens of its history are in them: some caches cannot tell."""

    caches: Caches
    tokens: int = 0


def new(model: Module, kv_bits: int | None) -> Caches:
    """Empty caches for one sequence."""
    caches: Caches = make_prompt_cache(model) if kv_bits is None else quantised.new(model, kv_bits)
    return caches


def members(caches: Caches) -> Caches:
    """The caches, with the members of a CacheList in its place."""
    found: Caches = []
    for cache in caches:
        found += members(list(cache.caches)) if isinstance(cache, CacheList) else [cache]
    return found


def can_be_cut(cache: object) -> bool:
    """Whether any part of the tokens can be taken out of a cache: whether all its arrays have them on axis 2, each in
    its place. (mlx-lm's `is_trimmable` is true of more: of caches that forget, as long as they have not.)"""
    return isinstance(cache, KVCache | QuantizedKVCache)


def cut_anywhere(caches: Caches) -> bool:
    """Whether that is true of all of them."""
    return all(map(can_be_cut, members(caches)))


def merge(caches: Sequence[Caches], *, are_aligned: bool = False) -> Caches:
    """One batch cache per layer; aligned ones want the shortest first. A model whose caches cannot be merged runs one
    sequence at a time, in its own."""
    if are_aligned:
        return list(aligned.merge(caches))
    if len(caches) == 1:
        mergeable = all(hasattr(cache, "merge") for cache in caches[0])
        return list(map(_alone, caches[0])) if mergeable else caches[0]
    return [layer[0].merge(list(layer)) for layer in zip(*caches, strict=True)]


def _alone(cache: Any) -> Any:
    """A batch cache of one row. It takes over a plain cache's arrays, and the room in them: `merge` would copy them,
    and the first token would have them copied again."""
    if type(cache) is not KVCache or cache.empty():
        return cache.merge([cache])
    batch = BatchKVCache([0])
    batch.keys, batch.values = cache.keys, cache.values
    batch.offset, batch._idx = mx.array([cache.offset]), cache.offset
    return batch


def extend(mine: Caches, theirs: Caches) -> None:
    """Put the rows of `theirs` behind those of `mine`; aligned caches put them where their lengths belong."""
    for a, b in zip(mine, theirs, strict=True):
        if type(a) is type(b) is BatchKVCache and not a.empty() and not b.empty():
            _extend(a, b)
        else:
            a.extend(b)


def _extend(a: Any, b: Any) -> None:
    """BatchKVCache.extend (mlx-lm 0.32) with one copy in place of three: large buffers are costly to touch first."""
    end = max(a._idx, b._idx)
    length = -(-(end + 1) // BatchKVCache.step) * BatchKVCache.step
    rows = a.keys.shape[0]

    def joined(x: mx.array, y: mx.array) -> mx.array:
        heads, width = x.shape[1], x.shape[3]
        both = mx.zeros((rows + y.shape[0], heads, length, width), dtype=x.dtype)
        both[:rows, :, end - a._idx : end] = x[..., : a._idx, :]
        both[rows:, :, end - b._idx : end] = y[..., : b._idx, :]
        return both

    a.keys, a.values = joined(a.keys, b.keys), joined(a.values, b.values)
    a.left_padding = mx.concatenate([a.left_padding + (end - a._idx), b.left_padding + (end - b._idx)])
    a.offset = mx.concatenate([a.offset, b.offset])
    a._idx = end


def bytes_per_token(caches: Caches) -> int:
    """What one more token costs in caches that hold one token already. Caches without keys keep a state of fixed size,
    and cost nothing more; those that slide are taken for such as grow."""
    both = [(getattr(cache, "keys", None), getattr(cache, "values", None)) for cache in members(caches)]
    return sum(leaf.nbytes // leaf.shape[2] for leaf in dict(tree_flatten(both)).values() if isinstance(leaf, mx.array))
