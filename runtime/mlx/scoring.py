"""How likely a prompt's own tokens are, for clients that measure texts instead of writing them."""

from collections.abc import Iterator
from typing import cast

import mlx.core as mx
from mlx.nn.layers.base import Module

from runtime.engine.commands import PrefillSlice, ScoredSlice
from runtime.mlx.caches import Caches
from runtime.mlx.draw import likeliest
from runtime.types import TokenOutput

LOGITS_BYTES = 1 << 26
"""The most that the logits of one forward pass may take, as float32: a long slice goes in by several."""


def score(piece: PrefillSlice, model: Module, caches: Caches, vocab_size: int) -> ScoredSlice:
    """Put a slice into a cache and return the log-probability of each of its targets."""
    at_once = max(1, LOGITS_BYTES // (4 * vocab_size))
    targets: list[TokenOutput] = []
    for start in range(0, len(piece.token_ids), at_once):
        part = slice(start, start + at_once)
        logits = model(mx.array([piece.token_ids[part]]), cache=caches)[0]
        targets += _scored(logits.astype(mx.float32), piece.targets[part], piece.top_logprobs)
        mx.eval([cache.state for cache in caches])
    return ScoredSlice(piece.sequence_id, tuple(targets))


def _scored(logits: mx.array, targets: tuple[int, ...], top: int) -> Iterator[TokenOutput]:
    """Each target by its row of `logits`, shape [targets, vocabulary].

    Only what is asked for is normalised (log_softmax): the whole would be another array as large as the logits.
    """
    mass = mx.logsumexp(logits, axis=-1, keepdims=True)
    of_targets = mx.take_along_axis(logits, mx.array(targets)[:, None], axis=-1) - mass
    top_ids = likeliest(logits, top)
    of_top = mx.take_along_axis(logits, top_ids, axis=-1) - mass
    mx.eval(of_targets, top_ids, of_top)
    logprobs = cast("list[list[float]]", of_targets.tolist())
    ids = cast("list[list[int]]", top_ids.tolist())
    values = cast("list[list[float]]", of_top.tolist())
    for place, target in enumerate(targets):
        yield TokenOutput(target, logprobs[place][0], tuple(zip(ids[place], values[place], strict=True)))
