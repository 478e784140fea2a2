"""A piece of KV cache as one safetensors file, of which no byte changes unnoticed.

Digests are SHA-256, for which processors have instructions: 1.7 GB/s on the x86-64 this was measured on, where BLAKE2b
does 0.7. Files are read and written here because NumPy, through which safetensors' library goes, has no bfloat16.
"""

import os
from dataclasses import dataclass
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from runtime.mlx import kv_header
from runtime.mlx.kv_header import Damaged, Header, Tensor, Unusable
from runtime.mlx.kv_store import StoredPiece
from runtime.types import KvHandle, KvPiece

if TYPE_CHECKING:
    from _hashlib import HASH

CHUNK_BYTES = 1 << 20
"""Read and digested at a time, so that the digest finds the bytes in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A piece in a form that another thread than the engine's may read."""

    piece: KvPiece
    layout: str
    tensors: tuple[Tensor, ...]
    content: tuple[memoryview, ...]
    """The bytes of each tensor, in row-major order."""


def pack(piece: KvPiece, stored: StoredPiece) -> Packed:
    """To be called in the thread that the arrays belong to. Contiguous ones are not copied: the bytes are their own,
    and keep them in memory."""
    return Packed(
        piece,
        stored.layout,
        tuple(Tensor(name, array.dtype, array.shape) for name, array in stored.arrays.items()),
        tuple(np.asarray(mx.contiguous(array).reshape(-1).view(mx.uint8)).data for array in stored.arrays.values()),
    )


def write(path: Path, model: str, packed: Packed) -> None:
    """Make the file, readable for its owner only. Raises OSError, and may then leave a part of it."""
    digest = sha256()
    for data in packed.content:
        digest.update(data)
    header = Header(packed.piece, model, packed.layout, digest.hexdigest(), packed.tensors)
    with open(path, "wb", opener=_private) as file:
        file.write(kv_header.encode(header))
        for data in packed.content:
            file.write(data)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


def describe(path: Path, model: str, handle: KvHandle) -> tuple[KvPiece, int]:
    """The piece that a file holds, and the file's bytes. Only the header is read and checked.

    Raises:
        Damaged: the file is not as it was written.
        Unusable: it holds another piece, one of another model, or something else.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _header(file, model, handle).piece, os.fstat(file.fileno()).st_size


def read(path: Path, model: str, handle: KvHandle) -> StoredPiece:
    """What was written, with every byte of it checked. Raises as `describe` does."""
    with path.open("rb") as file:
        header = _header(file, model, handle)
        digest = sha256()
        arrays = {tensor.name: _array(file, tensor, digest) for tensor in header.tensors}
    if digest.hexdigest() != header.digest:
        raise Damaged("its content has changed")
    mx.eval(arrays)
    return StoredPiece(arrays, header.layout, header.piece.start, header.piece.stop)


def _header(file: BufferedReader, model: str, handle: KvHandle) -> Header:
    header = kv_header.read(file, os.fstat(file.fileno()).st_size)
    if header.model != model:
        raise Unusable("it is of another model")
    if header.piece.handle != handle:
        raise Unusable("it is another piece than its name says")
    return header


def _array(file: BufferedReader, tensor: Tensor, digest: "HASH") -> mx.array:
    data = np.empty(tensor.nbytes, np.uint8)
    for at in range(0, tensor.nbytes, CHUNK_BYTES):
        chunk = data.data[at : at + CHUNK_BYTES]
        if file.readinto(chunk) != chunk.nbytes:
            raise Damaged("it is cut short")
        digest.update(chunk)
    return mx.array(data).view(tensor.dtype).reshape(tensor.shape)
