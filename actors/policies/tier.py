"""Books of one place where prefixes are kept, memory or disk: what is there, what it weighs, what goes first."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from actors.policies.radix import RadixTree
from runtime.types import KvHandle, KvPiece


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A kept sequence: the chain of pieces that its keys and values lie in. Compared by identity."""

    root: KvHandle
    token_ids: tuple[int, ...]
    pieces: tuple[KvPiece, ...]
    """From the first one on; all of them are needed."""

    @property
    def handles(self) -> tuple[KvHandle, ...]:
        return tuple(piece.handle for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Found:
    """The entry that serves a prompt best, and how many leading ids it serves."""

    entry: Entry
    tokens: int


class _References:
    """Which pieces are kept, which entries refer to each, and what they weigh; each counts once."""

    def __init__(self) -> None:
        self.nbytes = 0
        self.sizes: dict[KvHandle, int] = {}
        self._entries: dict[KvHandle, dict[Entry, None]] = {}
        """In the order in which they came; never none."""

    def take(self, entry: Entry, sizes: Mapping[KvHandle, int]) -> None:
        """Refer to each of its pieces; `sizes` in bytes, read of those that are new."""
        for handle in entry.handles:
            if handle not in self._entries:
                self._entries[handle] = {}
                self.sizes[handle] = sizes[handle]
                self.nbytes += sizes[handle]
            self._entries[handle][entry] = None

    def give_up(self, entry: Entry) -> tuple[KvHandle, ...]:
        """Refer to them no more; those that nobody refers to are forgotten and returned."""
        return tuple([handle for handle in entry.handles if self._given_up(handle, entry)])

    def of(self, handle: KvHandle) -> tuple[Entry, ...]:
        """The entries that refer to a piece."""
        return tuple(self._entries.get(handle, ()))

    def weigh(self, handle: KvHandle, nbytes: int) -> None:
        if handle in self.sizes:
            self.nbytes += nbytes - self.sizes[handle]
            self.sizes[handle] = nbytes

    def _given_up(self, handle: KvHandle, entry: Entry) -> bool:
        del self._entries[handle][entry]
        if self._entries[handle]:
            return False
        del self._entries[handle]
        self.nbytes -= self.sizes.pop(handle)
        return True


class Tier:
    """Entries in order of use, with the pieces that they share.

    Where caches are trimmable any beginning of an entry can be used, so no entry is the beginning of another. Where
    they are not, an entry serves exactly its whole length, and so that each of its pieces serves somebody its
    beginnings are kept as entries of their own (see PrefixCache.keep); those count as used whenever it is. So the least
    recently used entry never is the beginning of another, and letting go of it always frees a piece.
    """

    def __init__(self, *, trimmable: bool) -> None:
        self.evictions = 0
        """Entries that `shrink` let go of."""
        self._trimmable = trimmable
        self._trees: dict[KvHandle, RadixTree[Entry]] = {}
        """By root; never an empty one."""
        self._by_use: OrderedDict[Entry, None] = OrderedDict()
        """The least recently used first."""
        self._references = _References()

    def __len__(self) -> int:
        return len(self._by_use)

    @property
    def nbytes(self) -> int:
        return self._references.nbytes

    @property
    def pieces(self) -> int:
        """Pieces kept, those that several entries share counted once."""
        return len(self._references.sizes)

    def holds(self, handle: KvHandle) -> bool:
        return handle in self._references.sizes

    def size(self, handle: KvHandle) -> int | None:
        """What a piece weighs; None if it is not held."""
        return self._references.sizes.get(handle)

    def find(self, root: KvHandle, ids: tuple[int, ...]) -> Found | None:
        """What serves most of `ids`: of trimmable caches up to all of them, of others the longest entry that is a
        beginning of `ids` or equal. (A prompt's last id has to be fed to the model. What serves that one too must be
        trimmed: where it cannot be, ask for all but the last.) Does not count as use."""
        tree = self._trees.get(root)
        if tree is None:
            return None
        tokens, entry = tree.longest(ids) if self._trimmable else tree.deepest(ids)
        return None if entry is None else Found(entry, tokens)

    def add(
        self, root: KvHandle, pieces: tuple[KvPiece, ...], sizes: Mapping[KvHandle, int]
    ) -> tuple[Entry, tuple[KvHandle, ...]]:
        """Keep the sequence that `pieces` (all of its chain, at least one) make up, as the most recently used; `sizes`
        in bytes, of those not held yet at least. Gives its entry, or the one that serves all of it already, and the
        handles that are of no use after this: of entries it replaces, and of its own pieces if it was not needed."""
        entry = Entry(root, tuple(chain.from_iterable(piece.token_ids for piece in pieces)), pieces)
        found = self.find(root, entry.token_ids)
        if found is not None and found.tokens == len(entry.token_ids):
            self.use(found.entry)
            return found.entry, tuple([handle for handle in entry.handles if not self.holds(handle)])
        self._references.take(entry, sizes)
        self._trees.setdefault(root, RadixTree()).insert(entry.token_ids, entry)
        self._by_use[entry] = None
        replaced = self._beginnings(entry) if self._trimmable else []
        freed = self._remove_all(replaced)
        self.use(entry)
        return entry, freed

    def use(self, entry: Entry) -> None:
        """Make it the most recently used, but for its own beginnings; nothing if it is gone."""
        if entry in self._by_use:
            for used in (entry, *reversed(self._beginnings(entry))):
                self._by_use.move_to_end(used)

    def weigh(self, handle: KvHandle, nbytes: int) -> None:
        """The true size of a piece became known; nothing if it is not held."""
        self._references.weigh(handle, nbytes)

    def remove(self, entry: Entry) -> tuple[KvHandle, ...]:
        """Forget an entry; the handles that nobody refers to any more. Nothing if it is gone already."""
        if entry not in self._by_use:
            return ()
        del self._by_use[entry]
        tree = self._trees[entry.root]
        tree.remove(entry.token_ids)
        if not tree:
            del self._trees[entry.root]
        return self._references.give_up(entry)

    def without(self, handle: KvHandle) -> tuple[KvHandle, ...]:
        """Forget every entry that refers to a piece which turned out to be gone; the handles that nobody refers to any
        more, its own among them."""
        return self._remove_all(self._references.of(handle))

    def shrink(self, *, nbytes: int, entries: int, pieces: int) -> tuple[KvHandle, ...]:
        """Let go of least recently used entries until within all three bounds; the handles that nobody refers to any
        more."""
        freed: list[KvHandle] = []
        while self._by_use and (self.nbytes > nbytes or len(self) > entries or self.pieces > pieces):
            freed += self.remove(next(iter(self._by_use)))
            self.evictions += 1
        return tuple(freed)

    def clear(self) -> tuple[KvHandle, ...]:
        """Forget every entry; all handles."""
        return self._remove_all(list(self._by_use))

    def _beginnings(self, entry: Entry) -> list[Entry]:
        """The entries that this one begins with, shortest first."""
        return [beginning for _, beginning in self._trees[entry.root].beginnings(entry.token_ids)]

    def _remove_all(self, entries: Iterable[Entry]) -> tuple[KvHandle, ...]:
        return tuple([handle for entry in entries for handle in self.remove(entry)])
