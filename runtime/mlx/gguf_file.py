"""Reads the header of a GGUF file: its metadata and where its tensors lie, without loading them.

The format is llama.cpp's, versions 2 and 3, little-endian:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from runtime.errors import ModelError

Scalar = int | float | bool
Value = str | Scalar | list["Value"]

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""struct's letter of each metadata type but text and array."""
TEXT, ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class Kind:
    """How a tensor's elements are packed: blocks of `elements` that take `bytes` each."""

    name: str
    elements: int
    bytes: int


KINDS = {
    0: Kind("F32", 1, 4),
    1: Kind("F16", 1, 2),
    2: Kind("Q4_0", 32, 18),
    3: Kind("Q4_1", 32, 20),
    6: Kind("Q5_0", 32, 22),
    7: Kind("Q5_1", 32, 24),
    8: Kind("Q8_0", 32, 34),
    12: Kind("Q4_K", 256, 144),
    13: Kind("Q5_K", 256, 176),
    14: Kind("Q6_K", 256, 210),
    30: Kind("BF16", 1, 2),
}
"""The kinds that can be converted, by GGUF's id."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies in the file."""

    kind: Kind
    shape: tuple[int, ...]
    """Outermost dimension first, as in MLX; GGUF itself writes the innermost first."""
    offset: int
    """Of its first byte, from the start of the file."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says of itself.

    A look-up raises ModelError where the key is of another type, or missing and there is no default.
    """

    metadata: dict[str, Value]
    tensors: dict[str, Tensor]

    def text(self, key: str, default: str | None = None) -> str:
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise ModelError(f"no text under {key}")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.metadata.get(key, default)
        if not isinstance(value, int):
            raise ModelError(f"no whole number under {key}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.metadata.get(key, default)
        if not isinstance(value, int | float):
            raise ModelError(f"no number under {key}")
        return value

    def texts(self, key: str) -> list[str]:
        return [item for item in self._items(key, str) if isinstance(item, str)]

    def numbers(self, key: str) -> list[int | float]:
        return [item for item in self._items(key, int, float) if isinstance(item, int | float)]

    def _items(self, key: str, *types: type) -> list[Value]:
        value = self.metadata.get(key)
        if not isinstance(value, list) or not all(isinstance(item, types) for item in value):
            raise ModelError(f"no usable list under {key}")
        return value


def read_header(path: Path) -> Header:
    """Raises ModelError for a file that is not GGUF, is cut short, or holds a tensor of a kind not in KINDS."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError("not a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(data).header()
            except (struct.error, ArithmeticError, UnicodeDecodeError) as error:
                raise ModelError("the file is cut short or damaged") from error


class _Reader:
    """A place in the file that moves on as values are read."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = len(b"GGUF")

    def header(self) -> Header:
        version = self._whole("I")
        if version not in (2, 3):
            raise ModelError(f"GGUF version {version} is not supported, only 2 and 3")
        tensor_count, key_count = self._whole("Q"), self._whole("Q")
        metadata = {self._text(): self._value(self._whole("I")) for _ in range(key_count)}
        tensors = {self._text(): self._tensor() for _ in range(tensor_count)}
        alignment = Header(metadata, {}).integer("general.alignment", 32)
        start = -(-self._at // alignment) * alignment
        return Header(metadata, {name: self._placed(tensor, start) for name, tensor in tensors.items()})

    def _tensor(self) -> Tensor:
        """A tensor whose offset still counts from the end of the header."""
        shape = tuple(int(size) for size in reversed(self._scalars("Q", self._whole("I"))))
        kind_id, offset = self._whole("I"), self._whole("Q")
        if kind_id not in KINDS:
            names = ", ".join(kind.name for kind in KINDS.values())
            raise ModelError(f"it holds tensors of kind {kind_id}; those that can be read are {names}")
        kind = KINDS[kind_id]
        if not shape or shape[-1] % kind.elements:
            raise ModelError(f"the file is damaged: a {kind.name} tensor cannot have the shape {shape}")
        return Tensor(kind, shape, offset, prod(shape) // kind.elements * kind.bytes)

    def _placed(self, tensor: Tensor, start: int) -> Tensor:
        placed = replace(tensor, offset=start + tensor.offset)
        if placed.offset + placed.size_bytes > len(self._data):
            raise ModelError("the file is cut short: a tensor reaches past its end")
        return placed

    def _value(self, type_id: int) -> Value:
        if type_id == TEXT:
            return self._text()
        if type_id == ARRAY:
            return self._list(self._whole("I"), self._whole("Q"))
        return self._scalars(_letter(type_id), 1)[0]

    def _list(self, type_id: int, count: int) -> Value:
        """Lists of lists exist in the format, but not in the files of any model."""
        if type_id == TEXT:
            return [self._text() for _ in range(count)]
        return list(self._scalars(_letter(type_id), count))

    def _text(self) -> str:
        size = self._whole("Q")
        (text,) = self._unpack(f"<{size}s")
        return bytes(text).decode()

    def _whole(self, letter: str) -> int:
        return int(self._scalars(letter, 1)[0])

    def _scalars(self, letter: str, count: int) -> tuple[Scalar, ...]:
        values: tuple[Scalar, ...] = self._unpack(f"<{count}{letter}")
        return values

    def _unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return values


def _letter(type_id: int) -> str:
    if type_id not in SCALARS:
        raise ModelError(f"the file is damaged: it has a value of the unknown type {type_id}")
    return SCALARS[type_id]
