"""What is done to mlx-lm's KV caches here: merge them, put batches together, take a beginning, count their bytes."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.cache import BatchKVCache

Caches = list[Any]
"""One mlx-lm cache object per layer."""


def merge(caches: Sequence[Caches]) -> Caches:
    """One batch cache per layer. A model whose caches cannot be merged runs one sequence at a time, in its own."""
    if len(caches) == 1 and not all(hasattr(cache, "merge") for cache in caches[0]):
        return caches[0]
    return [layer[0].merge(list(layer)) for layer in zip(*caches, strict=True)]


def extend(mine: Caches, theirs: Caches) -> None:
    """Put the rows of `theirs` behind those of `mine`."""
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


def beginning(caches: Caches, tokens: int) -> Caches:
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


def bytes_per_token(cache: object) -> int:
    """What one more token costs in a layer's cache, of which one holds a token already. Caches without keys keep a
    state of fixed size, and cost nothing more."""
    keys, values = getattr(cache, "keys", None), getattr(cache, "values", None)
    if not isinstance(keys, mx.array) or not isinstance(values, mx.array):
        return 0
    return int(keys.nbytes // keys.shape[2] + values.nbytes // values.shape[2])
