"""The prefix cache's books: what is kept in memory and on disk, what serves a history, what is worth keeping of one."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from actors.policies.pieces import block_stops, chains, checkpoint_stops, cut
from actors.policies.prefix import hit_type, usable_tokens
from actors.policies.tier import Entry, Tier
from runtime.types import CacheStrategy, HitType, KvCheckpoint, KvHandle, KvPiece

LEGACY_ENTRIES = 32
"""How many sequences the legacy strategy keeps."""
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
        self, *, strategy: CacheStrategy, trimmable: bool, bytes_per_token: int, memory_bytes: int, disk_bytes: int
    ) -> None:
        """`strategy` as `chosen`; `disk_bytes` 0 is no disk."""
        self.strategy = strategy
        self._trimmable = trimmable
        self._bytes_per_token = bytes_per_token
        self._memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes
        self.memory = Tier(trimmable=trimmable)
        self.disk = Tier(trimmable=trimmable)
        self._coming: Counter[KvHandle] = Counter()
        """Asked of the engine, which has not answered yet."""

    def find(self, root: KvHandle, history: tuple[int, ...]) -> Hit | None:
        """What in memory serves most of a history."""
        return self._find(self.memory, root, history)

    def _find(self, tier: Tier, root: KvHandle, history: tuple[int, ...]) -> Hit | None:
        found = tier.find(root, history if self._trimmable else history[:-1])
        tokens = usable_tokens(history, found.tokens) if found else 0
        if found is None or tokens == 0:
            return None
        return Hit(found.entry, tokens, hit_type(history, found.entry.token_ids, found.tokens))

    def on_disk(self, root: KvHandle, history: tuple[int, ...], hit: Hit | None) -> Entry | None:
        """What is on disk and serves a history so much better than `hit`, from memory, that it is worth reading."""
        better = self._find(self.disk, root, history)
        if better is None or better.tokens - (hit.tokens if hit else 0) < WORTH_TOKENS:
            return None
        fits = len(better.entry.token_ids) * self._bytes_per_token <= self._memory_bytes
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

    def arrived(self, sizes: Mapping[KvHandle, int], missing: Iterable[KvHandle]) -> Freed:
        """The engine has these pieces now, of so many bytes, and could not get those."""
        for handle in (*sizes, *missing):
            self._coming[handle] -= 1
            if self._coming[handle] <= 0:
                del self._coming[handle]
        for handle, nbytes in sizes.items():
            self.memory.weigh(handle, nbytes)
        freed = Freed()
        for handle in missing:
            freed += Freed(self.memory.without(handle), self.disk.without(handle))
        return freed

    def plan(self, root: KvHandle, history: tuple[int, ...], stop_ids: frozenset[int], hit: Hit | None) -> Plan:
        """What to keep of a history while it is prefilled: others may begin like it before it ends, and caches that
        cannot be cut serve nobody else later."""
        begun = hit.pieces if hit else ()
        cached, wanted = hit.tokens if hit else 0, len(history) - 1
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
        """What pieces take, before the engine has told."""
        return sum(len(piece.token_ids) for piece in pieces) * self._bytes_per_token

    def keep(self, root: KvHandle, pieces: tuple[KvPiece, ...], *, memory_only: bool = False) -> Freed:
        """Put a chain of pieces in the index, as the most recently used."""
        sizes = {piece.handle: len(piece.token_ids) * self._bytes_per_token for piece in pieces}
        freed = Freed(self.memory.add(root, pieces, sizes)[1])
        if self._disk_bytes and not memory_only:
            freed += Freed((), self.disk.add(root, pieces, sizes)[1])
        return freed

    def unused(self, handles: Iterable[KvHandle]) -> Freed:
        """Those that no entry leads to."""
        nowhere = tuple(handle for handle in handles if not self.memory.holds(handle))
        return Freed(nowhere, tuple(handle for handle in nowhere if not self.disk.holds(handle)))

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
        return Freed(self.memory.clear(), self.disk.clear())

    def use(self, entry: Entry) -> None:
        """It served somebody, from memory: on disk it is worth no less."""
        self.memory.use(entry)
        if on_disk := self.disk.find(entry.root, entry.token_ids):
            self.disk.use(on_disk.entry)
