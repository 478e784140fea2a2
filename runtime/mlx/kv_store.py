"""Pieces of KV caches: cut out of the caches of a sequence, kept by handle, and put together for another."""

from dataclasses import dataclass

import mlx.core as mx


@dataclass(frozen=True, slots=True, eq=False)
class StoredPiece:
    """Keys and values of the tokens [start, stop) of a history, for all layers, in as few arrays as may be.

    Arrays of the same shape and type are stacked on a new first axis. Those named `tokens.N` have their tokens on axis
    3; those named `state.N` belong to caches that cannot be cut, and are as they were behind token `stop`.
    """

    arrays: dict[str, mx.array]
    layout: str
    """JSON: for each cache what its attributes are, either a value or the place [name, index] of an array."""
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())
