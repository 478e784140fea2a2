"""Converts a GGUF file of the llama architecture into a model directory as mlx-lm reads it."""

import json
import re
from pathlib import Path

import mlx.core as mx

from runtime.errors import ModelError
from runtime.mlx.gguf_blocks import GROUP_SIZE, read_tensor
from runtime.mlx.gguf_config import model_config, token_ids, tokenizer_config
from runtime.mlx.gguf_file import Header, read_header
from runtime.mlx.gguf_tokenizer import build_tokenizer
from runtime.mlx.loader import check_weights

Weights = dict[str, mx.array]

MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""llama.cpp's name of each module, without `blk.N.`, and mlx-lm's, without `model.layers.N.`."""

ROPE_FACTORS = "rope_freqs.weight"
"""Not a weight: what Llama 3.1 divides the frequencies of its rotary embedding by."""


def convert(gguf: Path, target: Path) -> None:
    """Write `gguf` as a model directory into the empty directory `target`.

    Raises ModelError if the file is damaged, is of another architecture, or has a tokenizer or a quantisation that
    is not supported; `target` may hold a part of the model then.
    """
    header = read_header(gguf)
    architecture = header.text("general.architecture")
    if architecture != "llama":
        raise ModelError(f"its architecture is {architecture}; of GGUF files only those of llama are supported")
    if header.integer("split.count", 1) > 1:
        raise ModelError("it is one part of a split file; merge the parts with llama-gguf-split first")
    factors = _rope_factors(gguf, header)
    weights = _weights(gguf, header)
    _write_json(target / "config.json", model_config(header, _quantised_bits(weights), factors))
    _write_json(target / "generation_config.json", token_ids(header))
    _write_json(target / "tokenizer_config.json", tokenizer_config(header))
    (target / "tokenizer.json").write_text(build_tokenizer(header).to_str(), encoding="utf-8")
    _save(weights, target / "model.safetensors")
    check_weights(target)


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def _save(weights: Weights, path: Path) -> None:
    try:
        mx.save_safetensors(str(path), weights, metadata={"format": "mlx"})
    except RuntimeError as error:
        raise ModelError(f"its converted weights cannot be written, perhaps the disk is full: {error}") from error


def _rope_factors(gguf: Path, header: Header) -> list[float]:
    tensor = header.tensors.get(ROPE_FACTORS)
    return [] if tensor is None else [float(factor) for factor in read_tensor(gguf, tensor)["weight"]]


def _weights(gguf: Path, header: Header) -> Weights:
    """All weights as mlx-lm names and orders them."""
    heads = header.integer("llama.attention.head_count")
    kv_heads = header.integer("llama.attention.head_count_kv", heads)
    weights = {}
    for name, tensor in header.tensors.items():
        if name == ROPE_FACTORS:
            continue
        module, part = _mlx_name(name)
        for array_name, array in read_tensor(gguf, tensor).items():
            if module.endswith("q_proj"):
                array = _unpermuted(array, heads)
            elif module.endswith("k_proj"):
                array = _unpermuted(array, kv_heads)
            weights[f"{module}.{part if array_name == 'weight' else array_name}"] = array
    return _norms_fitted(weights)


def _mlx_name(name: str) -> tuple[str, str]:
    """mlx-lm's module for a tensor of llama.cpp's, and `weight` or `bias`."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in MODULES:
        raise ModelError(f"its tensor {name} is not one of a plain Llama model")
    layer = "" if match[1] is None else f"model.layers.{match[1]}."
    return layer + MODULES[match[2]], match[3]


def _unpermuted(array: mx.array, heads: int) -> mx.array:
    """Undo llama.cpp's order of the rows of queries and keys.

    It puts the two halves of each head's rotary pairs next to each other (convert_hf_to_gguf.py, permute). Rows of
    packed weights, scales and biases move alike.
    """
    if heads < 1 or array.shape[0] % (2 * heads):
        raise ModelError(f"its {heads} attention heads do not fit {array.shape[0]} rows")
    return array.reshape(heads, -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _norms_fitted(weights: Weights) -> Weights:
    """A float16 model has float32 norms in GGUF, which would make MLX compute all of it in float32.

    A quantised one is meant to be computed in float32, the type of its scales.
    """
    embedding = weights.get("model.embed_tokens.weight")
    if embedding is None or _quantised_bits(weights):
        return weights
    return {name: array.astype(embedding.dtype) if array.ndim == 1 else array for name, array in weights.items()}


def _quantised_bits(weights: Weights) -> dict[str, int]:
    """The bits per element of each quantised module: 32-bit words of a row, over groups of 32 elements."""
    modules = [name.removesuffix(".scales") for name in weights if name.endswith(".scales")]
    return {
        module: weights[f"{module}.weight"].shape[-1] * 32 // (GROUP_SIZE * weights[f"{module}.scales"].shape[-1])
        for module in modules
    }
