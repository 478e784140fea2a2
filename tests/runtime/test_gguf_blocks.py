"""Every kind of GGUF block gives the numbers that it stands for, element by element as the format tells it."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from runtime.mlx.gguf_blocks import GROUP_SIZE, read_tensor
from runtime.mlx.gguf_file import KINDS, Tensor

Element = Callable[[bytes, int], float]

ROWS, COLUMNS = 3, 512


def half(block: bytes, at: int) -> float:
    return float(np.frombuffer(block[at : at + 2], np.float16)[0])


def nibble(quants: bytes, i: int) -> int:
    """Of 16 bytes for 32 elements: the first 16 elements are the low halves."""
    return quants[i] & 15 if i < 16 else quants[i - 16] >> 4


def bit(data: bytes, i: int) -> int:
    return data[i // 8] >> (i % 8) & 1


def q4_0(block: bytes, i: int) -> float:
    return half(block, 0) * (nibble(block[2:], i) - 8)


def q4_1(block: bytes, i: int) -> float:
    return half(block, 0) * nibble(block[4:], i) + half(block, 2)


def q5_0(block: bytes, i: int) -> float:
    return half(block, 0) * (nibble(block[6:], i) + 16 * bit(block[2:6], i) - 16)


def q5_1(block: bytes, i: int) -> float:
    return half(block, 0) * (nibble(block[8:], i) + 16 * bit(block[4:8], i)) + half(block, 2)


def q8_0(block: bytes, i: int) -> float:
    return half(block, 0) * int.from_bytes(block[2 + i : 3 + i], signed=True)


def k_scale(packed: bytes, group: int) -> tuple[int, int]:
    """The 6-bit scale and minimum of one of 8 groups, out of 12 bytes."""
    if group < 4:
        return packed[group] & 63, packed[group + 4] & 63
    low, high = packed[group + 4], (packed[group - 4] >> 6, packed[group] >> 6)
    return low & 15 | high[0] << 4, low >> 4 | high[1] << 4


def k_nibble(quants: bytes, i: int) -> int:
    """Of 128 bytes for 256 elements: 32 bytes hold the low halves of one group, then the high ones of the next."""
    pair, rest = divmod(i, 64)
    byte = quants[32 * pair + rest % 32]
    return byte & 15 if rest < 32 else byte >> 4


def q4_k(block: bytes, i: int) -> float:
    scale, least = k_scale(block[4:16], i // 32)
    return half(block, 0) * scale * k_nibble(block[16:], i) - half(block, 2) * least


def q5_k(block: bytes, i: int) -> float:
    scale, least = k_scale(block[4:16], i // 32)
    quant = k_nibble(block[48:], i) + 16 * (block[16 + i % 32] >> (i // 32) & 1)
    return half(block, 0) * scale * quant - half(block, 2) * least


def q6_k(block: bytes, i: int) -> float:
    part, within = divmod(i, 128)
    quarter, at = divmod(within, 32)
    low_byte = block[64 * part + 32 * (quarter % 2) + at]
    low = low_byte & 15 if quarter < 2 else low_byte >> 4
    high = block[128 + 32 * part + at] >> (2 * quarter) & 3
    scale = int.from_bytes(block[192 + i // 16 : 193 + i // 16], signed=True)
    return half(block, 208) * scale * (low + 16 * high - 32)


HALVES: dict[str, tuple[int, ...]] = {"Q4_0": (0,), "Q5_0": (0,), "Q8_0": (0,), "Q6_K": (208,)}
"""Where in a block float16 numbers stand, if not at 0 and 2."""

ELEMENTS: dict[str, Element] = {
    "Q4_0": q4_0,
    "Q4_1": q4_1,
    "Q5_0": q5_0,
    "Q5_1": q5_1,
    "Q8_0": q8_0,
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
}


def random_blocks(name: str, count: int, size: int) -> bytes:
    rng = np.random.default_rng(7)
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in HALVES.get(name, (0, 2)):
        blocks[:, at : at + 2] = rng.uniform(-0.03, 0.03, (count, 1)).astype(np.float16).view(np.uint8)
    return blocks.tobytes()


def as_float32(arrays: dict[str, mx.array]) -> np.ndarray:
    if "scales" not in arrays:
        return np.array(arrays["weight"].astype(mx.float32))
    bits = arrays["weight"].shape[-1] * 32 // COLUMNS
    return np.array(mx.dequantize(arrays["weight"], arrays["scales"], arrays["biases"], GROUP_SIZE, bits))


@pytest.mark.parametrize("name", ELEMENTS)
def test_each_element_of_a_block_is_what_the_format_says(tmp_path: Path, name: str) -> None:
    kind = next(kind for kind in KINDS.values() if kind.name == name)
    data = random_blocks(name, ROWS * COLUMNS // kind.elements, kind.bytes)
    path = tmp_path / "tensor"
    path.write_bytes(b"before" + data + b"after")

    found = as_float32(read_tensor(path, Tensor(kind, (ROWS, COLUMNS), len(b"before"), len(data))))

    blocks = [data[at : at + kind.bytes] for at in range(0, len(data), kind.bytes)]
    expected = [ELEMENTS[name](block, i) for block in blocks for i in range(kind.elements)]
    rounding = 1e-3 if name == "Q6_K" else 1e-6
    np.testing.assert_allclose(found, np.reshape(expected, (ROWS, COLUMNS)), rtol=rounding, atol=1e-6)


@pytest.mark.parametrize(
    "name, data, dtype",
    [
        ("F32", np.array([1.5, -2.25], np.float32).tobytes(), mx.float32),
        ("F16", np.array([1.5, -2.25], np.float16).tobytes(), mx.float16),
        ("BF16", np.array([0x3FC0, 0xC010], np.uint16).tobytes(), mx.bfloat16),
    ],
)
def test_plain_numbers_keep_their_type(tmp_path: Path, name: str, data: bytes, dtype: mx.Dtype) -> None:
    kind = next(kind for kind in KINDS.values() if kind.name == name)
    (tmp_path / "tensor").write_bytes(data)
    array = read_tensor(tmp_path / "tensor", Tensor(kind, (2,), 0, len(data)))["weight"]
    assert (array.dtype, array.tolist()) == (dtype, [1.5, -2.25])
