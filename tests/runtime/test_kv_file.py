"""A file of a piece gives back what was written, or nothing."""

import struct
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
from safetensors import safe_open

from runtime.mlx import kv_file, kv_header
from runtime.mlx.kv_header import Damaged, Unusable
from runtime.mlx.kv_store import StoredPiece
from runtime.types import KvHandle, KvPiece

MODEL = "0123abcd"
HANDLE = KvHandle(bytes(range(16)))
PIECE = KvPiece(HANDLE, KvHandle(b"p" * 16), start=64, token_ids=(0, 7, 49_151, 2**32 - 1))
ARRAYS = {
    "tokens.0": mx.arange(24, dtype=mx.float32).reshape(2, 1, 1, 4, 3).astype(mx.bfloat16) / 3,
    "state.0": mx.array([1.5, -2.5]),
}
STORED = StoredPiece(ARRAYS, '{"layers": 2}', 64, 68)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small file, as it should be."""
    path = tmp_path / "piece.safetensors"
    kv_file.write(path, MODEL, kv_file.pack(PIECE, STORED))
    return path


def same(a: mx.array, b: mx.array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(mx.array_equal(a, b))


def round_trip(tmp_path: Path, array: mx.array) -> mx.array:
    path = tmp_path / "one.safetensors"
    kv_file.write(path, MODEL, kv_file.pack(PIECE, StoredPiece({"a": array}, "", 64, 68)))
    return kv_file.read(path, MODEL, HANDLE).arrays["a"]


def test_a_piece_is_read_as_it_was_written(path: Path) -> None:
    found = kv_file.read(path, MODEL, HANDLE)
    assert (found.layout, found.start, found.stop) == (STORED.layout, STORED.start, STORED.stop)
    assert list(found.arrays) == list(ARRAYS)
    assert all(same(found.arrays[name], array) for name, array in ARRAYS.items())


def test_its_header_alone_tells_what_it_is(path: Path) -> None:
    assert kv_file.describe(path, MODEL, HANDLE) == (PIECE, path.stat().st_size)


@pytest.mark.parametrize("dtype", kv_header.TYPES.values(), ids=kv_header.TYPES)
def test_every_element_type_survives(tmp_path: Path, dtype: mx.Dtype) -> None:
    with mx.stream(mx.cpu):
        array = mx.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
        assert same(round_trip(tmp_path, array), array)


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 0, 5)], ids=str)
def test_arrays_of_one_element_or_none_survive(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert same(round_trip(tmp_path, mx.ones(shape)), mx.ones(shape))


def test_a_view_is_written_as_it_looks(tmp_path: Path) -> None:
    view = mx.arange(60).reshape(3, 4, 5).transpose(2, 0, 1)[1:4, :, ::2]
    assert same(round_trip(tmp_path, view), view)


def test_an_array_longer_than_a_chunk_survives(tmp_path: Path) -> None:
    array = mx.arange(kv_file.CHUNK_BYTES // 4 * 2 + 3)
    assert same(round_trip(tmp_path, array), array)


def test_others_can_read_it_as_safetensors(path: Path) -> None:
    with safe_open(path, framework="numpy") as file:
        assert file.metadata()["handle"] == HANDLE.hex()
        assert set(file.keys()) == {kv_header.SEAL, *ARRAYS}
        assert file.get_tensor("state.0").tolist() == [1.5, -2.5]


def test_it_is_for_its_owner_only(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_byte_can_change_unnoticed(path: Path) -> None:
    whole = path.read_bytes()
    for position in range(len(whole)):
        for mask in (0x01, 0xA0):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ mask]) + whole[position + 1 :])
            with pytest.raises(Damaged):
                kv_file.read(path, MODEL, HANDLE)


def test_a_header_is_trusted_only_as_it_was_written(path: Path) -> None:
    whole = path.read_bytes()
    tensors = sum(array.nbytes for array in ARRAYS.values())
    for position in range(len(whole) - tensors):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x01]) + whole[position + 1 :])
        with pytest.raises(Damaged):
            kv_file.describe(path, MODEL, HANDLE)


def test_a_file_of_any_other_length_is_damaged(path: Path) -> None:
    whole = path.read_bytes()
    for data in (*(whole[:length] for length in range(len(whole))), whole + b"\0"):
        path.write_bytes(data)
        for look in (kv_file.describe, kv_file.read):
            with pytest.raises(Damaged):
                look(path, MODEL, HANDLE)


def test_content_behind_the_header_of_another_piece_is_noticed(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    stored = StoredPiece({name: array + 1 for name, array in ARRAYS.items()}, STORED.layout, 64, 68)
    kv_file.write(other, MODEL, kv_file.pack(PIECE, stored))
    tensors = stored.nbytes
    path.write_bytes(path.read_bytes()[:-tensors] + other.read_bytes()[-tensors:])
    with pytest.raises(Damaged):
        kv_file.read(path, MODEL, HANDLE)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40])
def test_no_memory_is_set_aside_for_a_header_that_cannot_be_there(path: Path, length: int) -> None:
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(Damaged, match="cut short"):
        kv_file.read(path, MODEL, HANDLE)


def test_no_memory_is_set_aside_for_the_header_of_a_file_with_a_hole(path: Path) -> None:
    with path.open("wb") as file:
        file.write((1 << 40).to_bytes(8, "little"))
        file.truncate(1 << 41)
    with pytest.raises(Damaged, match="too long"):
        kv_file.describe(path, MODEL, PIECE.handle)


def test_no_memory_is_set_aside_for_tensors_that_cannot_be_there(path: Path) -> None:
    huge = kv_header.Tensor("huge", mx.float32, (2**40,))
    path.write_bytes(kv_header.encode(kv_header.Header(PIECE, MODEL, "", "", (huge,))))
    with pytest.raises(Damaged, match="length"):
        kv_file.read(path, MODEL, HANDLE)


@pytest.mark.parametrize("look", [kv_file.describe, kv_file.read])
def test_a_file_of_another_model_or_piece_or_format_is_not_used(
    path: Path, look: Callable[[Path, str, KvHandle], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unusable, match="another model"):
        look(path, "4567cdef", HANDLE)
    with pytest.raises(Unusable, match="another piece"):
        look(path, MODEL, KvHandle(b"h" * 16))
    monkeypatch.setattr(kv_header, "FORMAT", "troupe-kv-0")
    with pytest.raises(Unusable, match="another format"):
        look(path, MODEL, HANDLE)
