"""Keeps pieces of KV caches: in memory, and behind that on disk, if there is a folder for them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from runtime.engine import commands as c
from runtime.engine.host import Beat
from runtime.mlx.caches import Caches, Held
from runtime.mlx.kv_folder import KvFolder
from runtime.mlx.kv_store import KvStore
from runtime.types import KvHandle, KvPiece, SequenceId


class KvKeeper:
    """What an engine does when it is told to store, load, drop, list, fetch, erase or clear."""

    def __init__(self, folder: KvFolder | None, beat: Beat) -> None:
        self._memory = KvStore(beat)
        self._folder = folder
        self._beat = beat

    def store(self, command: c.StoreKv, held: Callable[[], Held | None]) -> c.Stored:
        """`held` gives what there is of the sequence. It is asked only if there is something to copy: its answer may
        be a copy, too."""
        wanted = self._memory.without(command.pieces)
        if wanted and (found := held()):
            self._memory.store(found, wanted)
        if self._folder:
            self._write(self._folder, command.pieces)
        return self._report(command.sequence_id, [piece.handle for piece in command.pieces])

    def _write(self, folder: KvFolder, pieces: tuple[KvPiece, ...]) -> None:
        for piece in pieces:
            if stored := self._memory.get(piece.handle):
                folder.write(piece, stored)
                self._beat("writing a prefix")
            else:
                folder.missed(piece.handle)

    def _report(self, sequence_id: SequenceId | None, handles: Sequence[KvHandle]) -> c.Stored:
        stored = self._memory.report(sequence_id, handles)
        return replace(stored, unwritten=self._folder.unwritten()) if self._folder else stored

    def load(self, command: c.LoadKv, empty: Caches) -> Held | None:
        """Fill `empty`, the caches of a new sequence; None if a piece is not in memory."""
        return self._memory.load(command.handles, command.tokens, empty)

    def drop(self, handles: tuple[KvHandle, ...]) -> None:
        self._memory.drop(handles)

    def list(self) -> tuple[tuple[KvPiece, int], ...]:
        """What is on disk, with its bytes; least recently used first."""
        return self._folder.list() if self._folder else ()

    def fetch(self, handles: tuple[KvHandle, ...]) -> c.Stored:
        """Read pieces into memory, as far as they are on disk and can be used."""
        for handle in handles:
            if self._folder and (stored := self._folder.read(handle)):
                self._memory.put(handle, stored)
            self._beat("reading a prefix")
        return self._report(None, handles)

    def erase(self, handles: tuple[KvHandle, ...]) -> None:
        if self._folder:
            self._folder.erase(handles)

    def clear(self) -> tuple[tuple[KvPiece, int], ...]:
        """Let go of everything; what is on disk still, because it could not be deleted."""
        self._memory = KvStore(self._beat)
        return self._folder.clear() if self._folder else ()
