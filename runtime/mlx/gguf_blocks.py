"""Unpacks a GGUF tensor into what MLX computes with: a quantised triple where its kind allows, else a plain array.

`mx.load` reads GGUF too, but none of its 5-bit kinds, and MLX 0.32 misreads Q4_K: in every second group of 32 it
uses the scale and the minimum of the group before. The layouts are ggml's (src/ggml-common.h, src/ggml-quants.c).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from runtime.mlx.gguf_file import Tensor

GROUP_SIZE = 32
"""Elements that share a scale and a bias in every triple made here."""

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Groups:
    """Quantised elements, block by block: element = quant * scale + bias."""

    bits: int
    quants: Bytes
    """(blocks, groups in a block * GROUP_SIZE)"""
    scales: Floats
    """(blocks, groups in a block)"""
    biases: Floats
    """(blocks, groups in a block)"""


def read_tensor(path: Path, tensor: Tensor) -> dict[str, mx.array]:
    """The arrays of one tensor under MLX's names: `weight`, with `scales` and `biases` if it is quantised.

    Scales and biases are float32, since rounding them to bfloat16 costs quality. Q6_K has groups of 16, which
    MLX has not: it becomes float16.
    """
    raw = np.fromfile(path, dtype=np.uint8, count=tensor.size_bytes, offset=tensor.offset)
    if tensor.kind.name in PLAIN:
        return {"weight": PLAIN[tensor.kind.name](raw).reshape(tensor.shape)}
    groups = PACKED[tensor.kind.name](raw.reshape(-1, tensor.kind.bytes))
    shape = (*tensor.shape[:-1], -1)
    return {
        "weight": mx.array(_pack(groups.quants, groups.bits)).reshape(shape),
        "scales": mx.array(groups.scales).reshape(shape),
        "biases": mx.array(groups.biases).reshape(shape),
    }


def _pack(quants: Bytes, bits: int) -> NDArray[np.uint32]:
    """MLX's packing: the quants of a row as one stream of bits, lowest first, cut into words of 32."""
    if bits == 4:
        packed = quants[:, 0::2] | _shifted(quants[:, 1::2], 4)
    elif bits == 8:
        packed = quants
    else:
        stream = np.unpackbits(quants[..., None], axis=-1, count=bits, bitorder="little")
        packed = np.packbits(stream.reshape(len(quants), -1), axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view(np.uint32)


def _bits(packed: Bytes, start: int, count: int) -> Bytes:
    """`count` bits of every byte, from bit `start` on, as a number."""
    return packed >> np.uint8(start) & np.uint8((1 << count) - 1)


def _shifted(quants: Bytes, by: int) -> Bytes:
    return quants << np.uint8(by)


def _halves(blocks: Bytes, start: int) -> Floats:
    """The float16 at byte `start` of every block, as a column of float32."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """The low halves of all bytes, then their high halves."""
    return np.concatenate([_bits(packed, 0, 4), _bits(packed, 4, 4)], axis=-1)


def _fifth_bits(packed: Bytes) -> Bytes:
    """One bit per element out of 4 bytes, moved to where it is worth 16."""
    return _shifted(np.unpackbits(packed, axis=-1, bitorder="little"), 4)


def _q4_0(blocks: Bytes) -> Groups:
    scales = _halves(blocks, 0)
    return Groups(4, _nibbles(blocks[:, 2:]), scales, -8 * scales)


def _q4_1(blocks: Bytes) -> Groups:
    return Groups(4, _nibbles(blocks[:, 4:]), _halves(blocks, 0), _halves(blocks, 2))


def _q5_0(blocks: Bytes) -> Groups:
    scales = _halves(blocks, 0)
    return Groups(5, _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6]), scales, -16 * scales)


def _q5_1(blocks: Bytes) -> Groups:
    quants = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return Groups(5, quants, _halves(blocks, 0), _halves(blocks, 2))


def _q8_0(blocks: Bytes) -> Groups:
    scales = _halves(blocks, 0)
    return Groups(8, blocks[:, 2:] ^ np.uint8(128), scales, -128 * scales)


def _q4_k(blocks: Bytes) -> Groups:
    scales, biases = _k_scales(blocks)
    return Groups(4, _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 256), scales, biases)


def _q5_k(blocks: Bytes) -> Groups:
    scales, biases = _k_scales(blocks)
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    high = np.stack([_bits(blocks[:, 16:48], group, 1) for group in range(8)], axis=1)
    return Groups(5, (low | _shifted(high, 4)).reshape(-1, 256), scales, biases)


def _k_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """The scales and biases of the 8 groups of a K block: 6-bit multiples of the block's two float16.

    12 bytes hold them: 4 with the first scales, 4 with the first minima, 4 with the low halves of the others, whose
    upper two bits lie above the 6 of the first.
    """
    first, second, rest = np.split(blocks[:, 4:16], 3, axis=-1)
    scales = np.concatenate([_bits(first, 0, 6), _bits(rest, 0, 4) | _shifted(_bits(first, 6, 2), 4)], axis=-1)
    minima = np.concatenate([_bits(second, 0, 6), _bits(rest, 4, 4) | _shifted(_bits(second, 6, 2), 4)], axis=-1)
    return _halves(blocks, 0) * scales, -_halves(blocks, 2) * minima


def _q6_k(raw: Bytes) -> mx.array:
    """256 elements a block: 128 bytes of low halves, 64 of upper bit pairs, 16 int8 scales, one float16."""
    blocks = raw.reshape(-1, 210)
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 256)
    pairs = blocks[:, 128:192].reshape(-1, 2, 32)
    high = np.concatenate([_bits(pairs, start, 2) for start in (0, 2, 4, 6)], axis=-1).reshape(-1, 256)
    quants = (low | _shifted(high, 4)).astype(np.int8) - 32
    scales = _halves(blocks, 208) * blocks[:, 192:208].view(np.int8)
    return mx.array((quants.reshape(-1, 16, 16) * scales[..., None]).astype(np.float16))


PLAIN: dict[str, Callable[[Bytes], mx.array]] = {
    "F32": lambda raw: mx.array(raw.view(np.float32)),
    "F16": lambda raw: mx.array(raw.view(np.float16)),
    "BF16": lambda raw: mx.array(raw.view(np.uint16)).view(mx.bfloat16),
    "Q6_K": _q6_k,
}
"""Kinds that become one array: how its bytes are read."""

PACKED: dict[str, Callable[[Bytes], Groups]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
}
"""Kinds that become a triple: how (blocks, bytes of a block) are unpacked."""
