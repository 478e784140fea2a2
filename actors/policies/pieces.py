"""Cuts a history into pieces of KV cache and names them by what they hold."""

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise

from runtime.types import KvHandle, KvPiece

BLOCK_TOKENS = 64
"""Length of a piece under the paged strategy."""

_DIGEST_BYTES = 16


def root_of(salt: str) -> KvHandle:
    """What a history's first piece has for a parent. Histories under different salts share nothing."""
    data = salt.encode("utf-8", "surrogatepass")
    return KvHandle(blake2b(data, digest_size=_DIGEST_BYTES, person=b"troupe.root").digest())


def cut(
    root: KvHandle, ids: tuple[int, ...], stops: Sequence[int], begun: tuple[KvPiece, ...] = ()
) -> tuple[KvPiece, ...]:
    """The pieces that end at `stops`: ascending, distinct, 1 to len(ids), where the last may leave some ids over. Ids
    are below 2**32, or OverflowError. `begun` is the chain's beginning, if that is cut already; stops lie behind it."""
    pieces = list(begun)
    first, parent = (begun[-1].stop, begun[-1].handle) if begun else (0, root)
    for start, stop in pairwise((first, *stops)):
        piece = KvPiece(_name(parent, ids[start:stop]), parent, start, ids[start:stop])
        pieces.append(piece)
        parent = piece.handle
    return tuple(pieces)


def chains(pieces: Iterable[KvPiece], *, every: bool) -> list[tuple[KvPiece, ...]]:
    """The chains that pieces make up, where all of one is there, in the order of their last pieces: of `every` piece
    the chain that ends with it, or only of those that no other goes on from. Pieces may say anything of their parents,
    as files do."""
    by_handle = {piece.handle: piece for piece in pieces}
    inner = set() if every else {piece.parent for piece in by_handle.values()}
    found = []
    for piece in by_handle.values():
        if piece.handle in inner:
            continue
        chain = [piece]
        while (parent := by_handle.get(chain[-1].parent)) and parent.stop == chain[-1].start:
            chain.append(parent)
        if not chain[-1].start:
            found.append(tuple(reversed(chain)))
    return found


def block_stops(tokens: int) -> tuple[int, ...]:
    """Where the paged strategy cuts a history: behind every block, and at its end."""
    return (*range(BLOCK_TOKENS, tokens, BLOCK_TOKENS), tokens) if tokens else ()


def checkpoint_stops(prompt: tuple[int, ...], stop_ids: frozenset[int], first: int) -> tuple[int, ...]:
    """Where a cache that cannot be cut is kept on the way through a prompt of which `first` ids are cached: ascending,
    between `first` and all but the last id, which the first decode step is fed.

    Messages end with a stop id. Behind the first one lies the system prompt, which others begin with too; behind the
    last two what the next turn begins with, even if it is put differently from here on (a retry, an edited message).
    """
    end = len(prompt) - 1
    behind = [position for position, id_ in enumerate(prompt[:-1], start=1) if id_ in stop_ids]
    return tuple(sorted(stop for stop in {*behind[:1], *behind[-2:], end} if stop > first))


def _name(parent: KvHandle, ids: tuple[int, ...]) -> KvHandle:
    """The parent's length is fixed and roots are hashed as another person, so no two chains give the same bytes."""
    return KvHandle(
        blake2b(parent + array("I", ids).tobytes(), digest_size=_DIGEST_BYTES, person=b"troupe.piece").digest()
    )
