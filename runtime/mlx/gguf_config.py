"""Turns a GGUF file's metadata into the JSON files of a model directory: config, generation config, tokenizer config.

The keys are GGUF's (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) and those of Hugging Face's Llama.
"""

from collections.abc import Mapping, Sequence

from runtime.errors import ModelError
from runtime.mlx.gguf_file import Header
from runtime.mlx.gguf_tokenizer import token_under

Config = dict[str, object]

END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""Ends of the sequence, of a turn and of a message: generation stops at each."""


def model_config(header: Header, quantised_bits: Mapping[str, int], rope_factors: Sequence[float]) -> Config:
    """config.json. `quantised_bits` says which modules are quantised in groups of 32, and to how many bits."""
    heads = header.integer("llama.attention.head_count")
    hidden = header.integer("llama.embedding_length")
    head_size = header.integer("llama.attention.key_length", hidden // max(heads, 1))
    if header.integer("llama.rope.dimension_count", head_size) != head_size:
        raise ModelError("it rotates only a part of each head, which is not supported")
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": header.integer("llama.feed_forward_length"),
        "num_hidden_layers": _layers(header),
        "num_attention_heads": heads,
        "num_key_value_heads": header.integer("llama.attention.head_count_kv", heads),
        "head_dim": head_size,
        "max_position_embeddings": header.integer("llama.context_length"),
        "vocab_size": _vocabulary_size(header),
        "rms_norm_eps": header.number("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": header.number("llama.rope.freq_base", 10000.0),
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in header.tensors,
        "tie_word_embeddings": "output.weight" not in header.tensors,
        **_rope_scaling(header, rope_factors),
        **_quantisation(quantised_bits),
        **token_ids(header),
    }


def token_ids(header: Header) -> Config:
    """generation_config.json: where a text begins and ends."""
    ends = [key for key in END_KEYS if f"tokenizer.ggml.{key}" in header.metadata]
    ids: Config = {"eos_token_id": sorted({header.integer(f"tokenizer.ggml.{key}") for key in ends})}
    if "tokenizer.ggml.bos_token_id" in header.metadata:
        ids["bos_token_id"] = header.integer("tokenizer.ggml.bos_token_id")
    return ids


def tokenizer_config(header: Header) -> Config:
    """tokenizer_config.json, with the chat template if there is one."""
    config: Config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": header.integer("llama.context_length"),
    }
    for role, key in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items():
        if f"tokenizer.ggml.{key}_token_id" in header.metadata:
            config[f"{role}_token"] = token_under(header, f"tokenizer.ggml.{key}_token_id")
    if "tokenizer.chat_template" in header.metadata:
        config["chat_template"] = header.text("tokenizer.chat_template")
    return config


def _layers(header: Header) -> int:
    """Checked here, because mlx-lm would build a million layers before it misses their weights."""
    stated = header.integer("llama.block_count")
    held = len({name.split(".")[1] for name in header.tensors if name.startswith("blk.")})
    if stated != held:
        raise ModelError(f"it is said to have {stated} layers, but holds the tensors of {held}")
    return stated


def _vocabulary_size(header: Header) -> int:
    """Rows of the embedding: an id beyond them would be read from memory that is not the model's."""
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelError("it has no token_embd.weight")
    rows, tokens = embedding.shape[0], len(header.texts("tokenizer.ggml.tokens"))
    if tokens > rows:
        raise ModelError(f"its tokenizer has {tokens} tokens, but the model knows only {rows}")
    return rows


def _rope_scaling(header: Header, factors: Sequence[float]) -> Config:
    """How the rotary embedding is stretched beyond the context it was trained on.

    Llama 3.1's files hold the factor of each frequency. mlx-lm takes such a list under the name longrope, and
    applies it as it stands if the original context is the context.
    """
    context = header.integer("llama.context_length")
    if factors:
        longrope = {"rope_type": "longrope", "factor": 1.0, "original_max_position_embeddings": context}
        return {"rope_scaling": longrope | {"short_factor": list(factors), "long_factor": list(factors)}}
    scaling = header.text("llama.rope.scaling.type", "none")
    if scaling == "linear":
        return {"rope_scaling": {"rope_type": "linear", "factor": header.number("llama.rope.scaling.factor")}}
    if scaling != "none":
        raise ModelError(f"it stretches its context by {scaling}, which is not supported")
    return {}


def _quantisation(bits: Mapping[str, int]) -> Config:
    """mlx-lm's form: a default, and the modules that differ from it."""
    if not bits:
        return {}
    counts = list(bits.values())
    usual = max(counts, key=counts.count)
    others = {module: {"group_size": 32, "bits": own} for module, own in bits.items() if own != usual}
    return {"quantization": {"group_size": 32, "bits": usual, **others}}
