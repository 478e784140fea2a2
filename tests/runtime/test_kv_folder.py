"""Pieces on disk are there whole or not at all, and what is wrong with a file is one line and a miss."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import mlx.core as mx
import pytest

from runtime.errors import SettingsError
from runtime.mlx import behind, kv_file, kv_header
from runtime.mlx.kv_folder import KvFolder
from runtime.mlx.kv_store import StoredPiece
from runtime.types import KvHandle, KvPiece

MODEL = "0123abcd"


def piece(number: int) -> KvPiece:
    return KvPiece(KvHandle(bytes([number]) * 16), KvHandle(b"r" * 16), 0, (number, 1, 2))


def stored(number: int) -> StoredPiece:
    return StoredPiece({"tokens.0": mx.full((1, 1, 2, 3, 4), number)}, "[]", 0, 3)


class House:
    """A cache directory, and the folders that are opened in it one after the other."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self.opened: list[KvFolder] = []

    def open(self, model: str = MODEL) -> KvFolder:
        self.opened.append(KvFolder(self.cache_dir, model, lambda _doing: None))
        return self.opened[-1]

    def path(self, number: int, model: str = MODEL) -> Path:
        return self.cache_dir / model / f"{piece(number).handle.hex()}.safetensors"

    def keep(self, *numbers: int, model: str = MODEL) -> None:
        """Have pieces on disk, the first used longest ago."""
        folder = self.open(model)
        for number in numbers:
            folder.write(piece(number), stored(number))
        folder.flush()
        for at, number in enumerate(numbers):
            os.utime(self.path(number, model), ns=(at, at))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "cache")
    yield house
    for folder in house.opened:
        folder.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """A disk that does nothing until it is set."""
    disk, write = Event(), kv_file.write

    def write_then(path: Path, model: str, packed: kv_file.Packed) -> None:
        disk.wait()
        write(path, model, packed)

    monkeypatch.setattr(kv_file, "write", write_then)
    yield disk
    disk.set()


def holds(folder: KvFolder, number: int) -> bool:
    """Whether a piece is there, and is what was stored."""
    found = folder.read(piece(number).handle)
    assert found is None or mx.array_equal(found.arrays["tokens.0"], stored(number).arrays["tokens.0"])
    return found is not None


def listed(folder: KvFolder) -> list[int]:
    return [found.token_ids[0] for found, _ in folder.list()]


def test_pieces_outlive_the_engine(house: House) -> None:
    house.keep(1, 2)
    later = house.open()
    assert later.list() == tuple((piece(number), house.path(number).stat().st_size) for number in (1, 2))
    assert holds(later, 1)
    assert holds(later, 2)


def test_the_least_recently_used_is_listed_first(house: House) -> None:
    house.keep(3, 1, 2)
    folder = house.open()
    assert listed(folder) == [3, 1, 2]
    assert holds(folder, 3)
    assert listed(folder) == [1, 2, 3]


def test_what_was_never_written_is_not_there(house: House, caplog: pytest.LogCaptureFixture) -> None:
    assert not holds(house.open(), 1)
    assert caplog.messages == []


def test_a_piece_can_be_read_before_it_is_written(house: House, disk: Event) -> None:
    folder = house.open()
    folder.write(piece(1), stored(1))
    assert holds(folder, 1)
    assert listed(folder) == []
    disk.set()
    folder.flush()
    assert listed(folder) == [1]


def test_a_piece_is_written_as_it_was_when_it_was_handed_over(house: House, disk: Event) -> None:
    folder = house.open()
    mine = stored(1)
    folder.write(piece(1), mine)
    mine.arrays["tokens.0"][0] = 99
    mx.eval(mine.arrays)
    disk.set()
    folder.flush()
    assert holds(house.open(), 1)


def test_a_piece_that_is_there_is_not_written_again(house: House) -> None:
    house.keep(1)
    folder = house.open()
    folder.list()
    folder.write(piece(1), stored(1))
    folder.flush()
    assert house.path(1).stat().st_mtime_ns == 0


def test_pieces_are_left_out_while_the_disk_does_not_keep_up(
    house: House, disk: Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(behind, "MOST_WAITING_BYTES", 2 * stored(1).nbytes)
    folder = house.open()
    for number in (1, 2, 3, 4):
        folder.write(piece(number), stored(number))
    assert [holds(folder, number) for number in (1, 2, 3, 4)] == [True, True, False, False]
    assert len(caplog.messages) == 1
    disk.set()
    folder.flush()
    folder.write(piece(3), stored(3))
    folder.flush()
    assert sorted(listed(folder)) == [1, 2, 3]


def test_a_piece_larger_than_all_that_may_wait_is_written_where_none_waits(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "MOST_WAITING_BYTES", 1)
    house.keep(1)
    assert listed(house.open()) == [1]


def test_erased_pieces_are_gone_and_others_stay(house: House) -> None:
    house.keep(1, 2)
    folder = house.open()
    folder.erase([piece(1).handle, piece(9).handle])
    folder.flush()
    assert listed(folder) == [2]


def test_a_piece_can_be_erased_before_it_is_written(house: House, disk: Event) -> None:
    folder = house.open()
    folder.write(piece(1), stored(1))
    folder.erase([piece(1).handle])
    assert not holds(folder, 1)
    disk.set()
    folder.flush()
    assert listed(folder) == []


def test_an_erased_piece_can_be_written_again(house: House) -> None:
    house.keep(1)
    folder = house.open()
    folder.list()
    folder.erase([piece(1).handle])
    folder.write(piece(1), stored(1))
    folder.flush()
    assert listed(folder) == [1]


@pytest.mark.parametrize("position", [0, 100, -1], ids=["in its length", "in its header", "in its content"])
def test_a_damaged_piece_is_one_line_and_deleted(house: House, position: int, caplog: pytest.LogCaptureFixture) -> None:
    house.keep(1)
    data = bytearray(house.path(1).read_bytes())
    data[position] ^= 0x10
    house.path(1).write_bytes(data)
    folder = house.open()
    assert not holds(folder, 1)
    assert not holds(folder, 1)
    [line] = caplog.messages
    assert str(house.path(1)) in line
    assert not house.path(1).exists()
    folder.write(piece(1), stored(1))
    folder.flush()
    assert holds(folder, 1)


def test_files_that_are_cut_short_or_empty_are_not_listed_and_deleted(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.keep(1, 2, 3)
    house.path(1).write_bytes(b"")
    house.path(2).write_bytes(house.path(2).read_bytes()[:-1])
    assert listed(house.open()) == [3]
    assert len(caplog.messages) == 2
    assert [path.name for path in house.path(3).parent.iterdir()] == [house.path(3).name]


def test_two_files_that_have_changed_names_are_neither_listed_nor_read(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.keep(1, 2)
    swap = house.path(1).rename(house.path(9))
    house.path(2).rename(house.path(1))
    swap.rename(house.path(2))
    folder = house.open()
    assert listed(folder) == []
    assert not holds(folder, 1)
    assert not holds(folder, 2)
    assert len(caplog.messages) == 4


def test_a_piece_of_another_model_is_left_alone(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.keep(1, model="another")
    folder = house.open()
    assert listed(folder) == []
    house.path(1).write_bytes(house.path(1, "another").read_bytes())
    assert listed(folder) == []
    assert not holds(folder, 1)
    assert len(caplog.messages) == 2
    assert house.path(1).exists()


def test_a_piece_in_another_format_is_left_alone(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as older:
        older.setattr(kv_header, "FORMAT", "troupe-kv-0")
        house.keep(1)
    folder = house.open()
    assert listed(folder) == []
    assert not holds(folder, 1)
    assert len(caplog.messages) == 2
    assert house.path(1).exists()


def test_whatever_else_lies_there_is_one_line_each(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.keep(1)
    there = house.path(1).parent
    (there / "notes.txt").write_text("not ours")
    (there / "xyz.safetensors").write_bytes(house.path(1).read_bytes())
    house.path(2).mkdir()
    house.path(3).symlink_to(house.path(3))
    folder = house.open()
    assert listed(folder) == [1]
    assert len(caplog.messages) == 4
    assert not holds(folder, 2)
    assert not holds(folder, 3)
    assert len(list(there.iterdir())) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_skipped(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.keep(1)
    house.path(1).chmod(0)
    assert not holds(house.open(), 1)
    assert len(caplog.messages) == 1


NOBODY = 1 << 23
"""The number of no process: Linux gives none above 2**22."""


@pytest.mark.parametrize(
    ("process", "hours", "stays"),
    [(NOBODY, 0, False), (os.getppid(), 0, True), (os.getpid(), 0, True), (os.getppid(), 2, False)],
    ids=["dead", "another server", "another engine of this one", "dead, and its number is another's"],
)
def test_what_is_half_written_is_removed_if_nobody_writes_it(
    house: House, process: int, hours: int, stays: bool
) -> None:
    house.keep(1)
    half = house.path(1).with_name(f".{house.path(2).name}.{process}.0a1b2c3d.tmp")
    half.write_bytes(house.path(1).read_bytes()[:50])
    at = time.time() - 3600 * hours
    os.utime(half, (at, at))
    assert listed(house.open()) == [1]
    assert half.exists() == stays


def test_a_full_disk_is_one_line_until_it_works_again(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = house.open()

    def full(path: Path, _model: str, _packed: kv_file.Packed) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as today:
        today.setattr(kv_file, "write", full)
        for number in (1, 2):
            folder.write(piece(number), stored(number))
        folder.flush()
    assert len(caplog.messages) == 1
    assert "No space left" in caplog.text
    assert list(house.path(1).parent.iterdir()) == []
    assert not holds(folder, 1)
    folder.write(piece(1), stored(1))
    folder.flush()
    assert listed(folder) == [1]
    assert folder.unwritten() == (piece(2).handle,)
    assert folder.unwritten() == ()


def test_what_is_left_out_is_told_once(
    house: House, disk: Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(behind, "MOST_WAITING_BYTES", stored(1).nbytes)
    folder = house.open()
    for number in (1, 2, 2):
        folder.write(piece(number), stored(number))
    assert folder.unwritten() == (piece(2).handle,)
    assert folder.unwritten() == ()
    disk.set()


def test_a_piece_that_nobody_has_is_told_unless_it_is_on_disk(house: House) -> None:
    house.keep(1)
    folder = house.open()
    folder.missed(piece(1).handle)
    folder.missed(piece(2).handle)
    assert folder.unwritten() == (piece(2).handle,)


def test_whatever_a_write_raises_the_next_piece_is_written(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = house.open()

    def raises(_path: Path, _model: str, _packed: kv_file.Packed) -> None:
        raise MemoryError

    with monkeypatch.context() as today:
        today.setattr(kv_file, "write", raises)
        folder.write(piece(1), stored(1))
        folder.flush()
    folder.write(piece(2), stored(2))
    folder.flush()
    assert listed(folder) == [2]
    assert folder.unwritten() == (piece(1).handle,)


def test_a_folder_that_has_vanished_is_made_again_and_what_was_in_it_is_told(house: House) -> None:
    house.keep(1)
    folder = house.open()
    folder.list()
    shutil.rmtree(house.cache_dir)
    folder.write(piece(2), stored(2))
    folder.flush()
    assert listed(folder) == [2]
    assert folder.unwritten() == (piece(1).handle,)
    folder.write(piece(1), stored(1))
    folder.flush()
    assert sorted(listed(folder)) == [1, 2]


def test_a_folder_that_has_vanished_holds_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.keep(1)
    folder = house.open()
    shutil.rmtree(house.cache_dir)
    assert listed(folder) == []
    assert len(caplog.messages) == 1
    assert folder.clear() == ()


def test_clearing_leaves_nothing_of_what_is_there_or_on_its_way(house: House, disk: Event) -> None:
    disk.set()
    house.keep(1, 2, model="another")
    house.keep(1, 2)
    disk.clear()
    notes = house.path(1).with_name("notes.txt")
    notes.write_text("not ours")
    beats: list[str] = []

    def let_the_disk_go_on(doing: str) -> None:
        beats.append(doing)
        disk.set()

    folder = KvFolder(house.cache_dir, MODEL, let_the_disk_go_on)
    house.opened.append(folder)
    for number in (3, 4):
        folder.write(piece(number), stored(number))
    assert folder.clear() == ()
    assert set(beats) == {"waiting for the disk", "clearing the cache"}
    assert list(house.path(1).parent.iterdir()) == [notes]
    assert folder.unwritten() == ()
    assert not any(holds(folder, number) for number in (1, 2, 3, 4))
    assert house.path(1, "another").exists()
    folder.write(piece(1), stored(1))
    folder.flush()
    assert listed(folder) == [1]


def forbid_deleting(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    unlink = Path.unlink

    def unlink_unless_forbidden(path: Path, missing_ok: bool = False) -> None:
        if path in paths:
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_unless_forbidden)


def test_clearing_tells_what_could_not_be_deleted_with_one_line(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house.keep(1, 2)
    folder = house.open()
    everything = folder.list()
    forbid_deleting(monkeypatch, house.path(1), house.path(2))
    assert folder.clear() == everything
    assert len(caplog.messages) == 1
    assert "cannot be deleted" in caplog.text
    assert holds(folder, 1)


def test_pieces_that_cannot_be_erased_are_one_line_until_it_works_again(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house.keep(1, 2)
    folder = house.open()
    with monkeypatch.context() as today:
        forbid_deleting(today, house.path(1), house.path(2))
        folder.erase([piece(1).handle, piece(2).handle])
        folder.flush()
        assert len(caplog.messages) == 1
        assert str(house.path(1)) in caplog.text
        house.keep(3)
        folder.erase([piece(3).handle, piece(2).handle])
        folder.flush()
    assert len(caplog.messages) == 2
    assert listed(folder) == [1, 2]


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), ValueError("odd")])
def test_whatever_reading_raises_is_one_line_and_a_miss(
    house: House, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house.keep(1)
    folder = house.open()

    def raises(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(kv_header, "read", raises)
    assert listed(folder) == []
    assert not holds(folder, 1)
    assert len(caplog.messages) == 2
    assert not any(line.endswith(": ") for line in caplog.messages)


def test_the_folder_is_for_its_owner_only(house: House) -> None:
    house.open()
    assert house.cache_dir.stat().st_mode & 0o777 == 0o700
    assert house.path(1).parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingsError) as caught:
        KvFolder(tmp_path / "file", MODEL, lambda _doing: None)
    assert str(caught.value) == f"cache_dir: {tmp_path / 'file'} is not a folder"


def test_an_engine_shows_that_it_is_at_work_while_it_lists(house: House) -> None:
    house.keep(1, 2)
    beats: list[str] = []
    folder = KvFolder(house.cache_dir, MODEL, beats.append)
    house.opened.append(folder)
    folder.list()
    assert len(beats) == 2
