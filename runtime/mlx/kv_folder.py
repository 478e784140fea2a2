"""Pieces of KV cache on disk, where they outlive the engine: it does what it is told, CacheManager decides."""

import logging
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from operator import itemgetter
from pathlib import Path

from runtime.engine.host import Beat
from runtime.errors import SettingsError
from runtime.mlx import kv_file
from runtime.mlx.behind import Behind
from runtime.mlx.kv_header import Damaged, Unusable
from runtime.mlx.kv_store import StoredPiece
from runtime.types import KvHandle, KvPiece

log = logging.getLogger("troupe.engine")

SCRATCH = ".tmp"
"""Ends the names of files that are being written, and of those that were when an engine died."""

NAME = re.compile(r"((?:[0-9a-f]{2})+)\.safetensors")
"""A handle in hexadecimal digits."""


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
        """What is still to be written."""
        self._failing = False
        try:
            for folder in (cache_dir, self._folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left_over in self._folder.glob(f".*{SCRATCH}"):
                left_over.unlink(missing_ok=True)
        except OSError as error:
            raise SettingsError(f"cache_dir: {error}") from error
        self._behind = Behind(str(self._folder))

    def write(self, piece: KvPiece, stored: StoredPiece) -> None:
        """Have a piece written soon, unless it is there already. None is taken while the disk does not keep up."""
        if piece.handle not in self._there and self._behind.has_room(stored.nbytes):
            self._there.add(piece.handle)
            self._waiting[piece.handle] = stored
            self._behind.do(partial(self._write, kv_file.pack(piece, stored)), stored.nbytes)

    def read(self, handle: KvHandle) -> StoredPiece | None:
        """What was written under `handle`. None if it is not there, and also, with a line in the log, if it cannot be
        used; if it is damaged, it is not there any more then."""
        if waiting := self._waiting.get(handle):
            return waiting
        path = self._path(handle)
        try:
            stored = kv_file.read(path, self._model, handle)
        except FileNotFoundError:
            stored = None
        except (OSError, Unusable) as error:
            stored = None
            _complain(path, error)
        if stored is None:
            self._there.discard(handle)
        else:
            _touch(path)
        return stored

    def list(self) -> tuple[tuple[KvPiece, int], ...]:
        """All pieces with the bytes of their files, least recently used first. Each other file is skipped with a line
        in the log; so is a damaged one, which is deleted."""
        found: list[tuple[int, KvPiece, int]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                self._beat("listing the cache")
                if not entry.name.startswith("."):
                    found += self._described(Path(entry.path))
        found.sort(key=itemgetter(0))
        self._there |= {piece.handle for _, piece, _ in found}
        return tuple((piece, nbytes) for _, piece, nbytes in found)

    def erase(self, handles: Iterable[KvHandle]) -> None:
        """Have pieces deleted soon; those that are not there are ignored."""
        for handle in handles:
            self._there.discard(handle)
            self._waiting.pop(handle, None)
            self._behind.do(partial(self._delete, handle))

    def flush(self) -> None:
        """Wait until all is written and deleted."""
        self._behind.flush()

    def close(self) -> None:
        """The same, and end the thread that does it."""
        self._behind.close()

    def _path(self, handle: KvHandle) -> Path:
        return self._folder / f"{handle.hex()}.safetensors"

    def _described(self, path: Path) -> tuple[tuple[int, KvPiece, int], ...]:
        """When it was used last, the piece and its bytes; nothing if `path` is not a file of ours."""
        try:
            handle = _handle(path)
            return ((path.stat().st_mtime_ns, *kv_file.describe(path, self._model, handle)),)
        except (OSError, Unusable) as error:
            _complain(path, error)
            return ()

    # --- in the other thread ---

    def _write(self, packed: kv_file.Packed) -> None:
        handle = packed.piece.handle
        scratch = self._folder / f".{handle.hex()}.{os.getpid()}{SCRATCH}"
        try:
            kv_file.write(scratch, self._model, packed)
            scratch.replace(self._path(handle))
        except OSError as error:
            if not self._failing:
                log.warning("%s: nothing can be kept: %s", self._folder, error)
            self._failing = True
            with suppress(OSError):
                scratch.unlink()
        else:
            self._failing = False
        self._waiting.pop(handle, None)

    def _delete(self, handle: KvHandle) -> None:
        with suppress(OSError):
            self._path(handle).unlink()


def _handle(path: Path) -> KvHandle:
    """Whose file it is. Raises Unusable if it is no piece's, or no file."""
    name = NAME.fullmatch(path.name)
    if name is None or not path.is_file():
        raise Unusable("it is no file of this cache")
    return KvHandle(bytes.fromhex(name[1]))


def _complain(path: Path, error: OSError | Unusable) -> None:
    """The one line about a file that cannot be used; the end of it if it is damaged."""
    if isinstance(error, Damaged):
        log.warning("%s is damaged and deleted: %s", path, error)
        with suppress(OSError):
            path.unlink()
    else:
        log.warning("%s is skipped: %s", path, error)


def _touch(path: Path) -> None:
    """It has been used now. Where that cannot be noted it counts as older than it is."""
    with suppress(OSError):
        os.utime(path)
