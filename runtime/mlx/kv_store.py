"""Pieces of KV caches: cut out of the caches of a sequence, kept by handle, and put together for another."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import KVCache

from runtime.engine.commands import Stored
from runtime.engine.host import Beat
from runtime.mlx.caches import Caches, Held, can_be_cut, cut_anywhere, members
from runtime.types import KvHandle, KvPiece, SequenceId

TOKENS, STATE = "tokens", "state"


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


class KvStore:
    """Pieces in memory, by handle. They share no array with a sequence that anybody could write to."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat
        self._pieces: dict[KvHandle, StoredPiece] = {}

    @property
    def nbytes(self) -> int:
        return sum(piece.nbytes for piece in self._pieces.values())

    def report(self, sequence_id: SequenceId | None, handles: Sequence[KvHandle]) -> Stored:
        """Which of these are here."""
        sizes = tuple((handle, self._pieces[handle].nbytes) for handle in handles if handle in self._pieces)
        return Stored(sequence_id, sizes, tuple(handle for handle in handles if handle not in self._pieces))

    def without(self, pieces: Iterable[KvPiece]) -> tuple[KvPiece, ...]:
        """Those of `pieces` that are not here."""
        return tuple(piece for piece in pieces if piece.handle not in self._pieces)

    def get(self, handle: KvHandle) -> StoredPiece | None:
        return self._pieces.get(handle)

    def put(self, handle: KvHandle, stored: StoredPiece) -> None:
        self._pieces[handle] = stored

    def store(self, held: Held, pieces: Iterable[KvPiece]) -> None:
        """Keep copies of pieces of a sequence; those that its caches do not hold, or not as they were at the piece's
        end, are left out."""
        for piece in pieces:
            if piece.stop == held.tokens or (piece.stop < held.tokens and cut_anywhere(held.caches)):
                self.put(piece.handle, cut_out(held.caches, piece.start, piece.stop))
                self._beat("keeping a prefix")

    def load(self, handles: Sequence[KvHandle], tokens: int, empty: Caches) -> Held | None:
        """Fill `empty` with the first `tokens` tokens of pieces that follow each other; None if one is not here."""
        pieces = [self._pieces[handle] for handle in handles if handle in self._pieces]
        if len(pieces) < len(handles):
            return None
        self._beat("loading a prefix")
        fill(empty, [piece for piece in pieces if piece.start < tokens], tokens)
        return Held(empty, tokens)

    def drop(self, handles: Iterable[KvHandle]) -> None:
        """Let go of pieces; unknown handles are ignored."""
        for handle in handles:
            self._pieces.pop(handle, None)


def cut_out(caches: Caches, start: int, stop: int) -> StoredPiece:
    """Copy the tokens [start, stop) out of the caches of one sequence. Where there are caches that cannot be cut, these
    must hold exactly `stop` tokens."""
    stacks = _Stacks()
    layout = []
    for cache in members(caches):
        kind, part = (TOKENS, slice(start, stop)) if can_be_cut(cache) else (STATE, slice(None))
        layout.append(
            {
                path: stacks.put(kind, value[:, :, part] if kind == TOKENS else value)
                if isinstance(value, mx.array)
                else value
                for path, value in dict(tree_flatten(vars(cache))).items()
            }
        )
    return StoredPiece(stacks.copied(), json.dumps(layout), start, stop)


def fill(empty: Caches, pieces: Sequence[StoredPiece], tokens: int) -> None:
    """Give new caches of a model the first `tokens` tokens of pieces, which follow each other from 0 on.

    Raises:
        ValueError: there is no such beginning.
    """
    last = pieces[-1]
    if tokens > last.stop or (tokens < last.stop and not cut_anywhere(empty)):
        raise ValueError(f"pieces up to {last.stop} cannot give {tokens} tokens")
    found = _Found(pieces, tokens)
    for cache, attributes in zip(members(empty), json.loads(last.layout), strict=True):
        vars(cache).update(tree_unflatten([(path, found.value(value)) for path, value in attributes.items()]))
        if can_be_cut(cache) and not cache.empty():
            cache.offset = tokens
    mx.eval(found.arrays)


class _Found:
    """Gives the values of a layout: of arrays that have tokens those of all pieces in one, with room for more, so that
    they are copied once, and not again when something is added."""

    def __init__(self, pieces: Sequence[StoredPiece], tokens: int) -> None:
        self._last = pieces[-1]
        self._stacks = {
            name: [mx.split(piece.arrays[name], len(array)) for piece in pieces]
            for name, array in self._last.arrays.items()
            if name.startswith(TOKENS)
        }
        """By name of a stack, of each piece its arrays; each with the stack's first axis still."""
        self._rest = tokens - self._last.start
        self._spare = KVCache.step - tokens % KVCache.step
        self.arrays: list[mx.array] = []
        """All that were given."""

    def value(self, value: object) -> object:
        if not isinstance(value, list):
            return value
        name, index = value
        # A new object in any case: whoever writes to it gets memory of its own.
        array = self._joined(name, index) if name in self._stacks else self._last.arrays[name][index]
        self.arrays.append(array)
        return array

    def _joined(self, name: str, index: int) -> mx.array:
        parts = [arrays[index] for arrays in self._stacks[name]]
        parts[-1] = parts[-1][:, :, :, : self._rest]
        _, batch, heads, _, width = parts[0].shape
        room = mx.zeros((1, batch, heads, self._spare, width), parts[0].dtype)
        return mx.concatenate([*parts, room], axis=3).squeeze(0)


class _Stacks:
    """Collects arrays by kind, shape and type."""

    def __init__(self) -> None:
        self._stacks: dict[tuple[str, tuple[int, ...], mx.Dtype], tuple[str, list[mx.array]]] = {}

    def put(self, kind: str, array: mx.array) -> tuple[str, int]:
        """Add an array; the name of its stack and its index there. Names count by kind, so that the pieces of a model
        agree on those of `tokens` whatever its state looks like."""
        of_its_kind = sum(key[0] == kind for key in self._stacks)
        name, stack = self._stacks.setdefault((kind, array.shape, array.dtype), (f"{kind}.{of_its_kind}", []))
        stack.append(array)
        return name, len(stack) - 1

    def copied(self) -> dict[str, mx.array]:
        """Every stack as one new array."""
        arrays = {name: _stacked(stack) for name, stack in self._stacks.values()}
        mx.eval(arrays)
        return arrays


def _stacked(arrays: list[mx.array]) -> mx.array:
    """A copy, even of one: a view would keep alive the buffer that it looks into."""
    return mx.stack(arrays) if len(arrays) > 1 else mx.take(arrays[0][None], mx.array([0]), axis=0)
