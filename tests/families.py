"""Makes tiny random models out of the ordinary: those whose KV caches cannot be cut (sliding windows, recurrent states,
and both beside others), and those whose code attends in a way of its own."""

import json
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes

from tests.tiny import VOCAB, write_tokenizer

WINDOW = 16

COMMON = {"hidden_size": 32, "intermediate_size": 48, "vocab_size": VOCAB, "max_position_embeddings": 512}

ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2}

FAMILIES: dict[str, dict[str, object]] = {
    "gemma3_text": {  # A RotatingKVCache in two layers of three.
        **ATTENTION,
        "num_hidden_layers": 3,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": WINDOW,
        "sliding_window_pattern": 3,
    },
    "jamba": {  # An ArraysCache in three layers of four, a KVCache in the other.
        **ATTENTION,
        "num_hidden_layers": 4,
        "attn_layer_offset": 1,
        "attn_layer_period": 4,
        "expert_layer_offset": 1,
        "expert_layer_period": 4,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "mamba_d_conv": 4,
        "mamba_d_state": 8,
        "mamba_expand": 2,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    },
    "falcon_h1": {  # A CacheList of both in every layer.
        **ATTENTION,
        "num_hidden_layers": 2,
        "head_dim": 8,
        "mamba_d_head": 8,
        "mamba_d_ssm": 32,
        "mamba_d_state": 8,
        "mamba_n_heads": 4,
        "tie_word_embeddings": False,
    },
    "mamba2": {  # No keys at all.
        "num_hidden_layers": 2,
        "num_heads": 4,
        "head_dim": 16,
        "state_size": 8,
        "layer_norm_epsilon": 1e-5,
        "conv_kernel": 4,
        "n_groups": 1,
        "use_bias": False,
        "use_conv_bias": True,
        "tie_word_embeddings": False,
        "time_step_limit": [0.0, 100.0],
        "time_step_rank": "auto",
    },
}
"""What is particular about the configurations of those whose caches cannot be cut, by mlx-lm's model_type."""

SELF_ATTENDING: dict[str, dict[str, object]] = {
    "gemma2": {  # Scores, mask and softmax of its own.
        **ATTENTION,
        "num_hidden_layers": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "rms_norm_eps": 1e-5,
    },
    "deepseek_v3": {  # A mask that holds part of the scores.
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "moe_intermediate_size": 16,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
    },
}
"""Their caches are plain ones."""


def make_family(path: Path, model_type: str) -> Path:
    """Write an mlx-lm model directory to `path`, with float32 weights as mlx-lm itself draws them; return it."""
    path.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": model_type,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **COMMON,
        **(FAMILIES | SELF_ATTENDING)[model_type],
    }
    (path / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    model_class, args_class = _get_classes(config)
    mx.random.seed(3)
    model = model_class(args_class.from_dict(config))
    weights = {name: _livelier(name, array) for name, array in dict(tree_flatten(model.parameters())).items()}
    mx.save_safetensors(str(path / "model.safetensors"), weights, metadata={"format": "mlx"})
    write_tokenizer(path)
    return path


def _livelier(name: str, array: mx.array) -> mx.array:
    """Larger where a token's past must show in the output."""
    return array * 3 if "proj" in name or "lm_head" in name or "embed" in name else array
