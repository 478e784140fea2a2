"""The models of the benchmark, in the form that every server runs best on this machine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HIDDEN, HEADS, LAYERS = 64, 4, 2
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def make_tiny(default_model: Path, target: Path) -> Path:
    """A 2-layer Llama of random weights with the default model's tokeniser: what a server costs shows beside it."""
    if (target / "config.json").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(default_model / name, target / name)
    vocab = json.loads((default_model / "config.json").read_text())["vocab_size"]
    save_file(_weights(vocab), target / "model.safetensors", metadata={"format": "mlx"})
    config = {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "vocab_size": vocab,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "eos_token_id": vocab - 1,
    }
    (target / "config.json").write_text(json.dumps(config))
    return target


def _weights(vocab: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return random.normal(0, columns**-0.5, (rows, columns)).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": matrix(vocab, HIDDEN),
        "lm_head.weight": matrix(vocab, HIDDEN),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
    }
    for layer in range(LAYERS):
        here = f"model.layers.{layer}."
        for name in ("q", "k", "v", "o"):
            weights[f"{here}self_attn.{name}_proj.weight"] = matrix(HIDDEN, HIDDEN)
        weights[here + "mlp.gate_proj.weight"] = matrix(2 * HIDDEN, HIDDEN)
        weights[here + "mlp.up_proj.weight"] = matrix(2 * HIDDEN, HIDDEN)
        weights[here + "mlp.down_proj.weight"] = matrix(HIDDEN, 2 * HIDDEN)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{here}{name}.weight"] = np.ones(HIDDEN, np.float32)
    return weights


def dequantised(model: Path, target: Path) -> Path:
    """`model` with float32 weights, by mlx_lm's own converter, so that no server computes on quantised ones."""
    if not (target / "config.json").exists():
        shutil.rmtree(target, ignore_errors=True)
        command = ["-m", "mlx_lm", "convert", "--hf-path", str(model), "--mlx-path", str(target)]
        subprocess.run(
            [sys.executable, *command, "--dequantize", "--dtype", "float32"], check=True, capture_output=True
        )
    return target
