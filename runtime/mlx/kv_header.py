"""What the file of a piece says of itself: its header, sealed so that it can be trusted without reading the rest.

The format is safetensors' own (https://github.com/huggingface/safetensors#format): eight bytes, little-endian, that
are the length of the header; the header, JSON, which gives each tensor its bytes' place behind the header. Here the
first tensor, `__seal__`, is the digest of all bytes before it; the header holds that of all bytes behind it.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from typing import BinaryIO

import mlx.core as mx
import msgspec
import numpy as np

from runtime.types import KvHandle, KvPiece

FORMAT = "troupe-kv-1"
"""Changes with whatever makes older files unreadable, or wrong."""

SEAL = "__seal__"
SEAL_BYTES = 32
LENGTH_BYTES = 8

MOST_BYTES = 64 << 20
"""No header is longer: ids of 10 million tokens take less. A file may be a hole of any length."""

TYPES: dict[str, mx.Dtype] = {
    "BOOL": mx.bool_,
    "U8": mx.uint8,
    "I8": mx.int8,
    "U16": mx.uint16,
    "I16": mx.int16,
    "U32": mx.uint32,
    "I32": mx.int32,
    "U64": mx.uint64,
    "I64": mx.int64,
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "F32": mx.float32,
    "F64": mx.float64,
    "C64": mx.complex64,
}
"""MLX's element types by safetensors' names."""

NAMES = {dtype: name for name, dtype in TYPES.items()}


class Unusable(Exception):
    """A file that holds no piece that can be used here; the text says why."""


class Damaged(Unusable):
    """A file that is not as it was written."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An array, without its elements."""

    name: str
    dtype: mx.Dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.size


@dataclass(frozen=True, slots=True)
class Header:
    piece: KvPiece
    model: str
    """The model's key: see model_key.py."""
    layout: str
    digest: str
    """SHA-256 of the bytes of all tensors, in hexadecimal digits."""
    tensors: tuple[Tensor, ...]
    """In the order of their bytes, which leave no gaps."""


class _Metadata(msgspec.Struct, frozen=True):
    """All but the tensors. Safetensors allows strings only."""

    format: str
    model: str
    handle: str
    parent: str
    start: str
    token_ids: str
    """Base64 of 32-bit integers, little-endian."""
    layout: str
    digest: str


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]
    """Begin and end, counted from the end of the header."""


def encode(header: Header) -> bytes:
    """All bytes of the file up to the first tensor's."""
    piece = header.piece
    metadata = _Metadata(
        format=FORMAT,
        model=header.model,
        handle=piece.handle.hex(),
        parent=piece.parent.hex(),
        start=str(piece.start),
        token_ids=b64encode(np.array(piece.token_ids, "<u4").tobytes()).decode(),
        layout=header.layout,
        digest=header.digest,
    )
    entries = {"__metadata__": msgspec.to_builtins(metadata), **msgspec.to_builtins(_placed(header.tensors))}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # So that the tensors begin at a multiple of it.
    head = len(text).to_bytes(LENGTH_BYTES, "little") + text
    return head + sha256(head).digest()


def _placed(tensors: Iterable[Tensor]) -> dict[str, _Entry]:
    entries = {SEAL: _Entry("U8", (SEAL_BYTES,), (0, SEAL_BYTES))}
    end = SEAL_BYTES
    for tensor in tensors:
        begin, end = end, end + tensor.nbytes
        entries[tensor.name] = _Entry(NAMES[tensor.dtype], tensor.shape, (begin, end))
    return entries


def read(file: BinaryIO, size: int) -> Header:
    """The header of a file of `size` bytes, which is left where the first tensor begins. What it promises is as long
    as the file, and nothing is read that would be longer, or longer than MOST_BYTES.

    Raises:
        Damaged: the header has changed, or the file has not the length that it should have.
        Unusable: it is sealed, but nothing that `encode` makes today.
    """
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if LENGTH_BYTES + length + SEAL_BYTES > size:
        raise Damaged("it is cut short")
    if length > MOST_BYTES:
        raise Damaged("its header is too long")
    text = file.read(length)
    seal = file.read(SEAL_BYTES)
    if sha256(length.to_bytes(LENGTH_BYTES, "little") + text).digest() != seal:
        raise Damaged("its header has changed")
    try:
        header = _decoded(text)
    except (msgspec.MsgspecError, ValueError, KeyError):
        raise Unusable("it is in another format") from None
    if LENGTH_BYTES + length + SEAL_BYTES + sum(tensor.nbytes for tensor in header.tensors) != size:
        raise Damaged("its length has changed")
    return header


def _decoded(text: bytes) -> Header:
    """Raises MsgspecError, ValueError or KeyError."""
    entries = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    metadata = msgspec.json.decode(entries.pop("__metadata__"), type=_Metadata)
    if metadata.format != FORMAT:
        raise ValueError(metadata.format)
    placed = {name: msgspec.json.decode(entry, type=_Entry) for name, entry in entries.items()}
    tensors = tuple(Tensor(name, TYPES[entry.dtype], entry.shape) for name, entry in placed.items() if name != SEAL)
    if placed != _placed(tensors):
        raise ValueError("tensors that leave gaps")
    return Header(_piece(metadata), metadata.model, metadata.layout, metadata.digest, tensors)


def _piece(metadata: _Metadata) -> KvPiece:
    return KvPiece(
        KvHandle(bytes.fromhex(metadata.handle)),
        KvHandle(bytes.fromhex(metadata.parent)),
        int(metadata.start),
        tuple(np.frombuffer(b64decode(metadata.token_ids), "<u4").tolist()),
    )
