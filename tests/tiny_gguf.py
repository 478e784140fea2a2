"""Writes small GGUF files in code, as llama.cpp would, so that tests of the conversion need no download."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Metadata = dict[str, object]

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
KIND_IDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8}


def make_tiny_gguf(path: Path, model: Path, kind: str = "F32", changes: Mapping[str, object] | None = None) -> Path:
    """Write the model directory `model` (from make_tiny_llama) as the GGUF file `path`, and return it.

    Matrices are of `kind`, norms are F32. `changes` replace entries of the metadata, or remove them if None.
    """
    metadata = tiny_metadata(model) | dict(changes or {})
    write_gguf(path, {key: value for key, value in metadata.items() if value is not None}, tiny_tensors(model), kind)
    return path


def tiny_metadata(model: Path) -> Metadata:
    config = json.loads((model / "config.json").read_text())
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    special = {token["content"] for token in tokenizer["added_tokens"]}
    return {
        "general.architecture": "llama",
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "llama.rope.freq_base": config["rope_theta"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [token for token, _ in vocabulary],
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token, _ in vocabulary],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in tokenizer["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
        "tokenizer.chat_template": json.loads((model / "tokenizer_config.json").read_text())["chat_template"],
    }


def tiny_tensors(model: Path) -> dict[str, Floats]:
    """The weights under llama.cpp's names, the rows of queries and keys in its order."""
    config = json.loads((model / "config.json").read_text())
    weights = mx.load(str(model / "model.safetensors"))
    assert isinstance(weights, dict)
    tensors = {}
    for name, array in weights.items():
        rows = np.array(array.astype(mx.float32))
        if "q_proj" in name:
            rows = _permuted(rows, config["num_attention_heads"])
        elif "k_proj" in name:
            rows = _permuted(rows, config["num_key_value_heads"])
        tensors[_gguf_name(name)] = rows
    return tensors


def _gguf_name(name: str) -> str:
    module = name.removesuffix(".weight")
    if module.startswith("model.layers."):
        _, _, layer, rest = module.split(".", 3)
        return f"blk.{layer}.{NAMES[rest]}.weight"
    return f"{NAMES[module]}.weight"


def _permuted(rows: Floats, heads: int) -> Floats:
    """Row by row, as rotary embeddings are told: pair (i, i + half) of a head becomes (2i, 2i + 1)."""
    permuted = np.empty_like(rows)
    size = len(rows) // heads
    for head in range(heads):
        for i in range(size // 2):
            permuted[head * size + 2 * i] = rows[head * size + i]
            permuted[head * size + 2 * i + 1] = rows[head * size + size // 2 + i]
    return permuted


def write_gguf(
    path: Path, metadata: Metadata, tensors: Mapping[str, Floats], kind: str | Mapping[str, str] = "F32"
) -> None:
    """A GGUF file, version 3. `kind` is of all matrices, or of each by name; what has one dimension is F32."""
    kinds = {name: kind if isinstance(kind, str) else kind[name] for name in tensors}
    kinds |= {name: "F32" for name, rows in tensors.items() if rows.ndim == 1}
    blobs = {name: pack(rows, kinds[name]) for name, rows in tensors.items()}
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    header += b"".join(_text(key) + _value(value) for key, value in metadata.items())
    offset = 0
    for name, rows in tensors.items():
        shape = struct.pack(f"<I{rows.ndim}Q", rows.ndim, *reversed(rows.shape))
        header += _text(name) + shape + struct.pack("<IQ", KIND_IDS[kinds[name]], offset)
        offset += len(_padded(blobs[name]))
    path.write_bytes(_padded(header) + b"".join(map(_padded, blobs.values())))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 32)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: object) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_text(str(text)) for text in value)
        case [float(), *_]:
            return struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
        case list():
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    raise TypeError(value)


def pack(rows: Floats, kind: str) -> bytes:
    """The bytes of `rows` in a plain kind, or in one that has a block of 32 elements."""
    if kind == "F32":
        return rows.astype("<f4").tobytes()
    if kind == "F16":
        return rows.astype("<f2").tobytes()
    return b"".join(BLOCKS[kind](block) for block in rows.reshape(-1, 32))


def _q8_0(block: Floats) -> bytes:
    scale = _scale(np.abs(block).max() / 127)
    quants: NDArray[np.int8] = np.rint(block / np.float32(scale)).clip(-127, 127).astype(np.int8)
    return scale.tobytes() + quants.tobytes()


def _q4_0(block: Floats) -> bytes:
    scale = _scale(np.abs(block).max() / 7)
    return scale.tobytes() + _nibbles(np.rint(block / np.float32(scale)) + 8)


def _q4_1(block: Floats) -> bytes:
    scale, least = _scale((block.max() - block.min()) / 15), np.float16(block.min())
    return scale.tobytes() + least.tobytes() + _nibbles(np.rint((block - np.float32(least)) / np.float32(scale)))


def _scale(step: float) -> np.float16:
    """Of a block of equal elements, the step is 0 and any scale will do."""
    return np.float16(step or 1)


def _nibbles(quants: Floats) -> bytes:
    whole = quants.clip(0, 15).astype(np.uint8)
    packed: NDArray[np.uint8] = whole[:16] | whole[16:] << np.uint8(4)
    return packed.tobytes()


BLOCKS: dict[str, Callable[[Floats], bytes]] = {"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1}
