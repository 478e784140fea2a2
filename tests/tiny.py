"""Makes tiny random Llama models in code, so that tests of the real engine need no download."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
"""The special tokens, with ids 0, 1 and 2; <|im_end|> ends a sequence."""

VOCAB = 512
"""How many ids the tokenizer knows: 3 special tokens, 256 bytes, 253 merges."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = (
    "The quick brown fox jumps over the lazy dog while seven wizards brew a potion from eleven herbs.",
    "A server answers one question at a time, or many at once; nobody likes to wait for the first word.",
    "Numbers such as 1, 23, 456 and 7890 are written beside words, e.g. in `def f(x): return x + 1`.",
    "What is the capital of France? Paris is the capital of France. Tell me a story about the sea!",
    "Once upon a time there was a company of actors who travelled from town to town with three carts.",
    "Every evening they lit the lamps, counted the coins, and rehearsed a comedy nobody had seen before.",
    "Please write a Python function that sorts a list, explain how it works, and keep the answer short.",
)

Weights = dict[str, mx.array]


def make_tiny_llama(
    path: Path,
    *,
    vocab: int = VOCAB,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    seed: int = 0,
    context: int = 2048,
    tied: bool = False,
) -> Path:
    """Write an mlx-lm model directory to `path` (made if need be) and return it.

    Float32 weights drawn from `seed`. Greedy output depends on the whole prompt, wanders instead of repeating
    one token, and never holds a special token, so it runs to max_tokens (with `tied` weights none of this is
    promised). `vocab` is at least 512; rows that the tokenizer does not know are never chosen greedily.
    """
    path.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        "vocab_size": vocab,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    _write_json(path / "config.json", config)
    _write_json(path / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    weights = _random_weights(vocab, hidden, layers, kv_heads * (hidden // heads), seed)
    if tied:
        del weights["lm_head.weight"]
    mx.save_safetensors(str(path / "model.safetensors"), weights, metadata={"format": "mlx"})
    write_tokenizer(path)
    return path


def make_marching_llama(path: Path) -> Path:
    """The same with a head that makes the next id a function of the current one, by a wide margin: greedy output
    marches through the vocabulary, and the last bits of a KV cache, which depend on its past, do not matter."""
    make_tiny_llama(path)
    file = str(path / "model.safetensors")
    weights = mx.load(file)
    assert isinstance(weights, dict)
    embedding = np.array(weights["model.embed_tokens.weight"])
    head = np.zeros_like(embedding)
    ids = np.random.default_rng(1).permutation(np.arange(3, VOCAB))
    head[np.roll(ids, -1)] = 10 * embedding[ids] / np.linalg.norm(embedding[ids], axis=1, keepdims=True)
    quiet = {name: array * 0.02 for name, array in weights.items() if "o_proj" in name or "down_proj" in name}
    mx.save_safetensors(file, weights | quiet | {"lm_head.weight": mx.array(head)}, metadata={"format": "mlx"})
    return path


def write_tokenizer(path: Path) -> None:
    """Put tokenizer.json and tokenizer_config.json (with the ChatML template) into `path`."""
    make_tokenizer().save(str(path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": IM_START,
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    _write_json(path / "tokenizer_config.json", config)


def make_tokenizer() -> Tokenizer:
    """A byte-level BPE of 512 ids, trained on CORPUS: any text comes back whole from encode and decode."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        min_frequency=1,
        show_progress=False,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in (END_OF_TEXT, IM_START, IM_END)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    assert tokenizer.get_vocab_size() == VOCAB
    return tokenizer


def _random_weights(vocab: int, hidden: int, layers: int, kv_width: int, seed: int) -> Weights:
    """Weights of variance gain / fan-in; the gains are large where a token's past must show in the output."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, gain: float) -> mx.array:
        return mx.array((gain * columns**-0.5 * rng.standard_normal((rows, columns))).astype(np.float32))

    def norm() -> mx.array:
        return mx.array((1 + 0.1 * rng.standard_normal(hidden)).astype(np.float32))

    weights = {"model.embed_tokens.weight": matrix(vocab, hidden, 1.0)}
    for index in range(layers):
        layer = f"model.layers.{index}"
        weights |= {
            f"{layer}.self_attn.q_proj.weight": matrix(hidden, hidden, 1.5),
            f"{layer}.self_attn.k_proj.weight": matrix(kv_width, hidden, 1.5),
            f"{layer}.self_attn.v_proj.weight": matrix(kv_width, hidden, 2.0),
            f"{layer}.self_attn.o_proj.weight": matrix(hidden, hidden, 2.0),
            f"{layer}.mlp.gate_proj.weight": matrix(2 * hidden, hidden, 1.5),
            f"{layer}.mlp.up_proj.weight": matrix(2 * hidden, hidden, 1.5),
            f"{layer}.mlp.down_proj.weight": matrix(hidden, 2 * hidden, 1.5),
            f"{layer}.input_layernorm.weight": norm(),
            f"{layer}.post_attention_layernorm.weight": norm(),
        }
    head = np.zeros((vocab, hidden), dtype=np.float32)
    head[3:VOCAB] = 3.0 * hidden**-0.5 * rng.standard_normal((VOCAB - 3, hidden))
    return weights | {"model.norm.weight": norm(), "lm_head.weight": mx.array(head)}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
