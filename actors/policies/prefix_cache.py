"""The prefix cache's books: what is kept in memory and on disk, what serves a history, what is worth keeping of one."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from actors.policies.chunks import ANYWHERE, Chunks
from actors.policies.pieces import block_stops, chains, checkpoint_stops, cut
from actors.policies.prefix import hit_type, usable_tokens
from actors.policies.tier import Entry, Tier
from runtime.types import CacheStrategy, HitType, KvCheckpoint, KvHandle, KvPiece

LEGACY_ENTRIES = 32
"""How many sequences the legacy strategy keeps. Where caches cannot be cut each checkpoint is a sequence of its own, so
that some ten conversations fill it."""
MOST_PIECES = 50_000
"""A piece is some buffers, and Metal has 499,000 of them at most."""
WORTH_TOKENS = 64
"""Fewer than so many are sooner computed than kept on the way, read from disk or loaded a second time."""


def chosen(strategy: CacheStrategy, *, trimmable: bool) -> CacheStrategy:
    """The strategy that is followed: `auto` shares blocks where the model's caches can be cut; where they cannot, none
    can be paged."""
    if strategy in (CacheStrategy.AUTO, CacheStrategy.PAGED):
        return CacheStrategy.PAGED if trimmable else CacheStrategy.MEMORY_AWARE
    return strategy


@dataclass(frozen=True, slots=True)
class Hit:
    """What serves a history."""

    entry: Entry
    tokens: int
    """How many of its leading ids: never all of them, the last one has to be fed to the model."""
    hit_type: HitType

    @property
    def pieces(self) -> tuple[KvPiece, ...]:
        """Those that hold these ids."""
        return tuple(piece for piece in self.entry.pieces if piece.start < self.tokens)

    @property
    def handles(self) -> tuple[KvHandle, ...]:
        return tuple(piece.handle for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be kept of a sequence while it is prefilled."""

    pieces: tuple[KvPiece, ...]
    """The chain up to the last checkpoint."""
    checkpoints: tuple[KvCheckpoint, ...]


@dataclass(frozen=True, slots=True)
class Freed:
    """Pieces that nobody refers to any more."""

    in_memory: tuple[KvHandle, ...] = ()
    on_disk: tuple[KvHandle, ...] = ()

    def __add__(self, other: "Freed") -> "Freed":
        return Freed(self.in_memory + other.in_memory, self.on_disk + other.on_disk)


class PrefixCache:
    """Two tiers, memory and disk, and pieces that are on their way into memory. Whoever asks for a change carries it
    out: what it gives as freed has to be dropped and erased."""

    def __init__(
        self,
        *,
        strategy: CacheStrategy,
        trimmable: bool,
        bytes_per_token: int,
        memory_bytes: int,
        disk_bytes: int,
        chunks: Chunks = ANYWHERE,
    ) -> None:
        """`strategy` as `chosen`; `disk_bytes` 0 is no disk. What serves a history ends where `chunks` do."""
        self.strategy = strategy
        self._trimmable = trimmable
        self._bytes_per_token = bytes_per_token
        self._memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes
        self._chunks = chunks
        self.memory = Tier(trimmable=trimmable)
        self.disk = Tier(trimmable=trimmable)
        self._coming: Counter[KvHandle] = Counter()
        """Asked of the engine, which has not answered yet."""
        self._promised: set[KvHandle] = set()
        """In the disk's books before the engine has said that it has them."""

    def find(self, root: KvHandle, history: tuple[int, ...]) -> Hit | None:
        """What in memory serves most of a history."""
        return self._find(self.memory, root, history)

    def _find(self, tier: Tier, root: KvHandle, history: tuple[int, ...]) -> Hit | None:
        found = tier.find(root, history if self._trimmable else history[:-1])
        tokens = self._chunks.floor(usable_tokens(history, found.tokens)) if found else 0
        if found is None or tokens == 0:
            return None
        return Hit(found.entry, tokens, hit_type(history, found.entry.token_ids, found.tokens))

    def on_disk(self, root: KvHandle, history: tuple[int, ...], hit: Hit | None, *, room_bytes: int) -> Entry | None:
        """What is on disk and serves a history so much better than `hit`, from memory, that it is worth reading;
        `room_bytes` is what memory may keep at this moment."""
        better = self._find(self.disk, root, history)
        if better is None or better.tokens - (hit.tokens if hit else 0) < WORTH_TOKENS:
            return None
        fits = self.bytes_of(better.entry.pieces) <= min(room_bytes, self._memory_bytes)
        return better.entry if fits else None

    def listed(self, pieces: Sequence[tuple[KvPiece, int]]) -> Freed:
        """An earlier life left these on disk, of so many bytes; the least recently used comes first. Those that nothing
        leads to are freed."""
        sizes = {piece.handle: nbytes for piece, nbytes in pieces}
        for chain in chains([piece for piece, _ in pieces], every=not self._trimmable):
            self.disk.add(chain[0].parent, chain, sizes)
        return Freed((), tuple(handle for handle in sizes if not self.disk.holds(handle)))

    def is_coming(self, handles: Iterable[KvHandle]) -> bool:
        """Whether the engine has yet to say that it has some of these."""
        return any(handle in self._coming for handle in handles)

    def expect(self, handles: Iterable[KvHandle]) -> None:
        """The engine was asked for these."""
        self._coming.update(handles)

    def arrived(self, sizes: Mapping[KvHandle, int], missing: Iterable[KvHandle], *, fetched: bool) -> Freed:
        """The engine has these pieces now, of so many bytes, and could not get those: from disk if they were to be
        fetched, else of a sequence, which says nothing of a file that was there before."""
        self.answered((*sizes, *missing))
        for handle, nbytes in sizes.items():
            self.memory.weigh(handle, nbytes)
            self.disk.weigh(handle, nbytes)
        self._promised.difference_update(sizes)
        freed = Freed()
        for handle in missing:
            gone = fetched or handle in self._promised
            freed += Freed(self.memory.without(handle), self.disk.without(handle) if gone else ())
        self._promised.difference_update(missing)
        return freed

    def answered(self, handles: Iterable[KvHandle]) -> None:
        """The engine has said what came of these."""
        for handle in handles:
            self._coming[handle] -= 1
            if self._coming[handle] <= 0:
                del self._coming[handle]

    def unwritten(self, handles: Iterable[KvHandle]) -> Freed:
        """These did not get to disk, and memory is as it was: they can be written another time."""
        return Freed((), tuple(freed for handle in handles for freed in self.disk.without(handle)))

    def plan(self, root: KvHandle, history: tuple[int, ...], stop_ids: frozenset[int], hit: Hit | None) -> Plan:
        """What to keep of a history while it is prefilled: others may begin like it before it ends, and caches that
        cannot be cut serve nobody else later."""
        begun = hit.pieces if hit else ()
        cached, wanted = hit.tokens if hit else 0, self._chunks.floor(len(history) - 1)
        if not self._memory_bytes or wanted - cached < WORTH_TOKENS:
            return Plan(begun, ())
        if self._trimmable:
            pieces = self.chain(root, history[:wanted])
            return Plan(pieces, (KvCheckpoint(wanted, self.absent(pieces)),))
        pieces = cut(root, history, checkpoint_stops(history, stop_ids, cached), begun)
        return Plan(pieces, tuple(KvCheckpoint(piece.stop, (piece,)) for piece in pieces[len(begun) :]))

    def chain(self, root: KvHandle, held: tuple[int, ...], begun: tuple[KvPiece, ...] = ()) -> tuple[KvPiece, ...]:
        """The pieces of a sequence that is to be kept. Where caches cannot be cut, `begun` are the checkpoints on the
        way: those still in memory stay, and one more piece goes on from there."""
        if self.strategy is CacheStrategy.PAGED:
            return cut(root, held, block_stops(len(held)))
        if self._trimmable:
            return cut(root, held, (len(held),))
        kept = takewhile(lambda piece: piece.stop < len(held) and self.memory.holds(piece.handle), begun)
        return cut(root, held, (len(held),), tuple(kept))

    def absent(self, pieces: Iterable[KvPiece]) -> tuple[KvPiece, ...]:
        """Those that are not kept in memory yet, or not on disk where they could be."""
        return tuple(
            piece
            for piece in pieces
            if not self.memory.holds(piece.handle) or (self._disk_bytes and not self.disk.holds(piece.handle))
        )

    def bytes_of(self, pieces: Iterable[KvPiece]) -> int:
        """What pieces take, as far as the engine has told; else what so many tokens take at least."""
        return sum(self._size(piece) for piece in pieces)

    def _size(self, piece: KvPiece) -> int:
        known = self.memory.size(piece.handle) or self.disk.size(piece.handle)
        return known or len(piece.token_ids) * self._bytes_per_token

    def keep(
        self,
        root: KvHandle,
        pieces: tuple[KvPiece, ...],
        told: Mapping[KvHandle, int] | None = None,
        *,
        memory_only: bool = False,
    ) -> Freed:
        """Put a chain of pieces in the index, as the most recently used; `told` in bytes, of those that the engine has
        just told of. On disk are those that were there and those that the engine is given."""
        told = told or {}
        sizes = {piece.handle: told.get(piece.handle) or self._size(piece) for piece in pieces}
        freed = Freed(self._add(self.memory, root, pieces, sizes))
        if memory_only or not self._disk_bytes:
            return freed
        given = tuple(takewhile(lambda piece: self._is_given(piece.handle, told), pieces))
        self._promised.update(p.handle for p in given if p.handle not in told and not self.disk.holds(p.handle))
        return freed + Freed((), self._add(self.disk, root, given, sizes))

    def _is_given(self, handle: KvHandle, told: Mapping[KvHandle, int]) -> bool:
        return self.disk.holds(handle) or handle in told or handle in self._coming

    def _add(
        self, tier: Tier, root: KvHandle, pieces: tuple[KvPiece, ...], sizes: Mapping[KvHandle, int]
    ) -> tuple[KvHandle, ...]:
        """Where caches cannot be cut, each beginning serves whoever goes on from there."""
        shortest = len(pieces) if self._trimmable else 1
        lengths = range(max(1, shortest), len(pieces) + 1)
        freed = {handle: None for length in lengths for handle in tier.add(root, pieces[:length], sizes)[1]}
        return tuple(handle for handle in freed if not tier.holds(handle))

    def unused(self, handles: Iterable[KvHandle]) -> Freed:
        """Those of stored pieces that no entry leads to, in memory or on disk."""
        handles = tuple(handles)
        nowhere = tuple(handle for handle in handles if not self.memory.holds(handle))
        return Freed(nowhere, tuple(h for h in handles if self._disk_bytes and not self.disk.holds(h)))

    def shrink(self, memory_bytes: int) -> Freed:
        """Let go of what is beyond the bounds, least recently used first; `memory_bytes` is this moment's."""
        nbytes = max(0, min(self._memory_bytes, memory_bytes))
        entries = LEGACY_ENTRIES if self.strategy is CacheStrategy.LEGACY else MOST_PIECES
        return Freed(
            self.memory.shrink(nbytes=nbytes, entries=entries if nbytes else 0, pieces=MOST_PIECES),
            self.disk.shrink(nbytes=self._disk_bytes, entries=MOST_PIECES, pieces=MOST_PIECES),
        )

    def clear(self) -> Freed:
        """Let go of everything."""
        self._promised.clear()
        return Freed(self.memory.clear(), self.disk.clear())

    def use(self, entry: Entry) -> None:
        """It served somebody, from memory: on disk it is worth no less."""
        self.memory.use(entry)
        if on_disk := self.disk.find(entry.root, entry.token_ids):
            self.disk.use(on_disk.entry)
