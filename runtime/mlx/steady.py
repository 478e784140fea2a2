"""Products of rows with a weight matrix that give a row the same bits however many rows there are.

Which kernel a BLAS or a GPU takes, and with it the order of its sums, depends on the number of rows. From some number
on it often does not matter any more: that number is measured for every shape of matrix, on the device at hand, and
fewer rows are padded to it. Where there is no such number rows are computed in blocks of a fixed size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear

MOST_ROWS = 32
"""More rows than this are computed in parts."""
BLOCKS = (8, 4, 1)

Product = Callable[[mx.array], mx.array]
"""Rows of shape [rows, 1, inputs] to [rows, 1, outputs]."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the rows of one shape of product are computed."""

    most: int
    """So many at once, and no more."""
    least: int
    """Fewer are padded to so many."""

    def apply(self, product: Product, x: mx.array) -> mx.array:
        """All rows of `x`, in parts."""
        parts = [self._part(product, x[start : start + self.most]) for start in range(0, x.shape[0], self.most)]
        return parts[0] if len(parts) == 1 else mx.concatenate(parts)

    def _part(self, product: Product, x: mx.array) -> mx.array:
        rows = x.shape[0]
        if rows >= self.least:
            return product(x)
        padding = mx.zeros((self.least - rows, *x.shape[1:]), dtype=x.dtype)
        return product(mx.concatenate([x, padding]))[:rows]


def plan(product: Product, inputs: int, dtype: mx.Dtype) -> Plan:
    """Find out by trying; rows of noise differ in their last bits as soon as anything is summed in another order."""
    x = mx.random.normal((MOST_ROWS, 1, inputs), key=mx.random.key(0)).astype(dtype)
    whole = product(x)
    if not _same(product(x[::-1]), whole[::-1]):
        return next(Plan(size, size) for size in BLOCKS if size == 1 or _place_is_nothing(product, x[:size]))
    least = MOST_ROWS
    while least > 1 and _does(product, x, whole, least - 1):
        least -= 1
    return Plan(MOST_ROWS, least)


def _does(product: Product, x: mx.array, whole: mx.array, rows: int) -> bool:
    """Whether so many rows come out as they do among all, where they lie in other places."""
    return _same(product(x[-rows:]), whole[-rows:])


def _place_is_nothing(product: Product, x: mx.array) -> bool:
    """Whether a block's rows come out the same in every place of it."""
    whole, rows = product(x), list(range(x.shape[0]))
    turned = (mx.array(rows[by:] + rows[:by]) for by in rows)
    return all(_same(product(x[places]), whole[places]) for places in turned)


def _same(a: mx.array, b: mx.array) -> bool:
    return bool(mx.array_equal(a, b).item())


# --- in a model ---


def steady(model: Module) -> None:
    """Have every linear layer of the model compute so where rows come with one token each, as in decoding."""
    plans: dict[tuple[object, ...], Plan] = {}
    for module in model.modules():
        for kind, method in _PRODUCTS.items():
            if type(module) is kind:
                _make_steady(module, kind, method, plans)


_PRODUCTS: dict[type, str] = {
    Linear: "__call__",
    QuantizedLinear: "__call__",
    Embedding: "as_linear",
    QuantizedEmbedding: "as_linear",
}


def _make_steady(layer: Any, kind: type, method: str, plans: dict[tuple[object, ...], Plan]) -> None:
    product = getattr(kind, method)
    key = (kind, layer.weight.shape, getattr(layer, "bits", None), "bias" in layer, _dtype(layer))
    if key not in plans:
        plans[key] = plan(lambda rows: product(layer, rows), _inputs(layer), _dtype(layer))
    layer.__class__ = _STEADY[kind]
    layer.steady_plan = plans[key]


def _steady_class(kind: type, method: str) -> type:
    """A subclass of a layer whose `method` follows the layer's plan."""
    product: Callable[[Any, mx.array], mx.array] = getattr(kind, method)

    def follow(self: Any, x: mx.array) -> mx.array:
        one_token_each = x.ndim == 3 and x.shape[1] == 1
        of_plan: Plan = self.steady_plan
        return of_plan.apply(lambda rows: product(self, rows), x) if one_token_each else product(self, x)

    return type(f"Steady{kind.__name__}", (kind,), {method: follow})


_STEADY = {kind: _steady_class(kind, method) for kind, method in _PRODUCTS.items()}


def _dtype(layer: Any) -> mx.Dtype:
    dtype: mx.Dtype = layer.scales.dtype if "scales" in layer else layer.weight.dtype
    return dtype


def _inputs(layer: Any) -> int:
    """Packed elements are `bits` of 32 each."""
    width = int(layer.weight.shape[1])
    return width * 32 // layer.bits if "scales" in layer else width
