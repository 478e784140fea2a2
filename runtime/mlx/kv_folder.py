"""Pieces of KV cache on disk, where they outlive the engine: it does what it is told, CacheManager decides."""

import logging
import os
import re
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter
from pathlib import Path
from threading import Lock

from runtime.engine.host import Beat
from runtime.errors import SettingsError
from runtime.mlx import kv_file, scratch
from runtime.mlx.behind import Behind
from runtime.mlx.kv_header import Damaged, Unusable
from runtime.mlx.kv_store import StoredPiece
from runtime.mlx.trouble import Trouble
from runtime.types import KvHandle, KvPiece

log = logging.getLogger("troupe.engine")

NAME = re.compile(r"((?:[0-9a-f]{2})+)\.safetensors")
"""A handle in hexadecimal digits."""

Listed = tuple[tuple[KvPiece, int], ...]
"""Pieces with the bytes of their files, least recently used first."""


class KvFolder:
    """The folder of one model within a cache directory. All methods belong to the engine's thread; files are written
    and deleted behind its back, in the order in which it asked, and whatever is still to be written when the process
    ends is lost.

    A file is there whole or not at all; when it was last read or written is its mtime.
    """

    def __init__(self, cache_dir: Path, model: str, beat: Beat) -> None:
        """`model` is its key: see model_key.py. Raises SettingsError if there can be no such folder."""
        self._folder = cache_dir / model
        self._model = model
        self._beat = beat
        self._there: set[KvHandle] = set()
        """What is on disk or will be, as far as is known here."""
        self._waiting: dict[KvHandle, StoredPiece] = {}
        """What is still to be written. What has been is taken out by the other thread; so there is a lock."""
        self._lock = Lock()
        self._lost: deque[KvHandle] = deque()
        """What the other thread found not to be on disk: either thread may add to it."""
        self._unwritten: set[KvHandle] = set()
        """The same, to be told."""
        self._writing = Trouble(f"{self._folder}: nothing can be kept")
        self._deleting = Trouble(f"{self._folder}: what is not needed cannot be deleted")
        try:
            for folder in (cache_dir, self._folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                scratch.tidy(folder)
        except (FileExistsError, NotADirectoryError) as error:
            raise SettingsError(f"cache_dir: {error.filename} is not a folder") from error
        except OSError as error:
            raise SettingsError(f"cache_dir: {error}") from error
        self._behind = Behind(str(self._folder))

    def write(self, piece: KvPiece, stored: StoredPiece) -> None:
        """Have a piece written soon, unless it is there already. None is taken while the disk does not keep up."""
        self._settle()
        handle = piece.handle
        if handle in self._there:
            return
        if not self._behind.has_room(stored.nbytes):
            self._unwritten.add(handle)
            return
        with self._lock:
            self._waiting[handle] = stored
        self._there.add(handle)
        self._unwritten.discard(handle)
        self._behind.do(partial(self._write, stored, kv_file.pack(piece, stored)), stored.nbytes)

    def missed(self, handle: KvHandle) -> None:
        """It cannot be written: nobody has it. That is told, unless it is on disk."""
        if handle not in self._there and not self._path(handle).exists():
            self._unwritten.add(handle)

    def unwritten(self) -> tuple[KvHandle, ...]:
        """What was to be written, or was thought to be there, and is not: each piece once."""
        self._settle()
        told, self._unwritten = self._unwritten, set()
        return tuple(told)

    def read(self, handle: KvHandle) -> StoredPiece | None:
        """What was written under `handle`. None if it is not there, and also, with a line in the log, if it cannot be
        used; if it is damaged, it is not there any more then."""
        if waiting := self._waiting.get(handle):
            return waiting
        path = self._path(handle)
        try:
            stored = kv_file.read(path, self._model, handle)
        except Exception as error:  # Whatever a file makes it raise, the engine goes on.
            self._there.discard(handle)
            if not isinstance(error, FileNotFoundError):
                _complain(path, error)
            return None
        _touch(path)
        return stored

    def list(self) -> Listed:
        """All pieces. Each other file is skipped with a line in the log; so is a damaged one, which is deleted."""
        return self._listed(self._files())

    def erase(self, handles: Iterable[KvHandle]) -> None:
        """Have pieces deleted soon; those that are not there are ignored."""
        for handle in handles:
            self._there.discard(handle)
            with self._lock:
                self._waiting.pop(handle, None)
            self._behind.do(partial(self._delete, self._path(handle)))

    def clear(self) -> Listed:
        """Delete all pieces now, and let go of what is still to be written. What could not be deleted."""
        with self._lock:
            self._waiting.clear()
        self.flush()
        for known in (self._there, self._lost, self._unwritten):
            known.clear()
        stuck = []
        for path in self._files():
            self._beat("clearing the cache")
            if NAME.fullmatch(path.name) and not self._delete(path):
                stuck.append(path)
        return self._listed(stuck)

    def flush(self) -> None:
        """Wait until all is written and deleted."""
        self._behind.flush(lambda: self._beat("waiting for the disk"))

    def close(self) -> None:
        """The same, and end the thread that does it."""
        self._behind.close()

    def _path(self, handle: KvHandle) -> Path:
        return self._folder / f"{handle.hex()}.safetensors"

    def _settle(self) -> None:
        """Take note of what the other thread found."""
        while self._lost:
            handle = self._lost.popleft()
            self._there.discard(handle)
            self._unwritten.add(handle)

    def _files(self) -> Sequence[Path]:
        """All but hidden ones; none, with a line in the log, if the folder cannot be read."""
        try:
            return [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            log.warning("%s: nothing is found there: %s", self._folder, error)
            return []

    def _listed(self, paths: Iterable[Path]) -> Listed:
        found: list[tuple[int, KvPiece, int]] = []
        for path in paths:
            self._beat("listing the cache")
            found += self._described(path)
        found.sort(key=itemgetter(0))
        self._there |= {piece.handle for _, piece, _ in found}
        return tuple((piece, nbytes) for _, piece, nbytes in found)

    def _described(self, path: Path) -> tuple[tuple[int, KvPiece, int], ...]:
        """When it was used last, the piece and its bytes; nothing if `path` is not a file of ours."""
        try:
            handle = _handle(path)
            return ((path.stat().st_mtime_ns, *kv_file.describe(path, self._model, handle)),)
        except Exception as error:  # Whatever a file makes it raise, the engine goes on.
            _complain(path, error)
            return ()

    # --- in the other thread ---

    def _write(self, stored: StoredPiece, packed: kv_file.Packed) -> None:
        handle = packed.piece.handle
        if self._waiting.get(handle) is not stored:
            return  # It has been erased since.
        written = False
        try:
            self._put(packed)
            self._writing.over()
            written = True
        except Exception as error:  # Whatever it was, the piece is not there.
            self._writing.met(error)
        with self._lock:
            if self._waiting.get(handle) is stored:
                del self._waiting[handle]
                self._lost.extend([] if written else [handle])

    def _put(self, packed: kv_file.Packed) -> None:
        """In a folder that has vanished it is tried once more when that has been made again."""
        try:
            self._put_once(packed)
        except FileNotFoundError:
            if not self._folder.exists():
                self._folder.mkdir(mode=0o700, parents=True)
                self._lost.extend(handle for handle in tuple(self._there) if handle not in self._waiting)
            self._put_once(packed)

    def _put_once(self, packed: kv_file.Packed) -> None:
        with scratch.replacing(self._path(packed.piece.handle)) as path:
            kv_file.write(path, self._model, packed)

    # --- in either ---

    def _delete(self, path: Path) -> bool:
        """Whether it is not there any more."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._deleting.met(error)
            return False
        self._deleting.over()
        return True


def _handle(path: Path) -> KvHandle:
    """Whose file it is. Raises Unusable if it is no piece's, or no file."""
    name = NAME.fullmatch(path.name)
    if name is None or not path.is_file():
        raise Unusable("it is no file of this cache")
    return KvHandle(bytes.fromhex(name[1]))


def _complain(path: Path, error: Exception) -> None:
    """The one line about a file that cannot be used; the end of it if it is damaged."""
    if isinstance(error, Damaged):
        log.warning("%s is damaged and deleted: %s", path, error)
        with suppress(OSError):
            path.unlink()
    else:
        log.warning("%s is skipped: %s", path, str(error) or type(error).__name__)


def _touch(path: Path) -> None:
    """It has been used now. Where that cannot be noted it counts as older than it is."""
    with suppress(OSError):
        os.utime(path)
