"""Loads a model directory into MLX, and finds out what the rest of the house must know of it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.quantized import QuantizedEmbedding
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import _get_classes, load_model

from runtime.engine.host import Beat
from runtime.errors import ModelError
from runtime.mlx import device, quantised
from runtime.mlx.caches import Caches, Held, bytes_per_token, cut_anywhere, new
from runtime.types import ModelFacts

Config = dict[str, object]

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "model_max_length")
"""What configurations call the longest sequence, the usual name first."""

UNSTATED_CONTEXT_TOKENS = 32_768
"""For models whose configuration names no limit, such as recurrent ones."""

REVIVAL_CHUNK = 512
"""Tokens per forward pass when a history is computed again."""

LONGEST_REASON = 300
"""Characters kept of an error that lists every parameter of a model."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model whose weights are in memory, in the form that suits the device."""

    model: Module
    config: Config
    context_tokens: int
    """Tokens a sequence may hold, as the configuration says."""
    vocab_size: int
    """Ids below this can be fed in and come out; the configuration may promise more or fewer."""
    eos_ids: tuple[int, ...]
    """The end-of-sequence ids that the configuration names."""
    dtype: str
    """The floating type of most of its bytes: the type it computes in."""
    weight_bytes: int
    kv_bits: int | None
    """Bits per element of its KV caches; None: they are of its type."""
    invariant: bool = False
    """Its rows are computed so that company changes nothing about them: see invariant.py."""
    chunk_tokens: int = 0
    """See LoadModel."""

    def new_caches(self) -> Caches:
        """Empty caches for one sequence."""
        return new(self.model, self.kv_bits)

    def feed(self, token_ids: tuple[int, ...], held: Held) -> None:
        """Put ids into a sequence's caches. Logits are never looked at, so they are never computed."""
        self.model(mx.array([token_ids]), cache=held.caches)
        mx.eval([cache.state for cache in held.caches])
        held.tokens += len(token_ids)

    def computed(self, prompt_ids: tuple[int, ...], output_ids: tuple[int, ...], beat: Beat) -> Held:
        """The caches of a history, computed anew, with all of it but its last id. Where chunks are fixed only of the
        prompt: output that was made step by step is to be fed step by step again."""
        history = prompt_ids if self.chunk_tokens else prompt_ids + output_ids
        held, end = Held(self.new_caches()), len(history) - 1
        for start in range(0, end, self.chunk_tokens or REVIVAL_CHUNK):
            self.feed(history[start : min(start + (self.chunk_tokens or REVIVAL_CHUNK), end)], held)
            beat("computing a history")
        return held

    def facts(self, caches: Caches) -> ModelFacts:
        """What the rest of the house must know; `caches` hold one token."""
        return ModelFacts(
            context_tokens=self.context_tokens,
            declared_context_tokens=self.context_tokens,
            vocab_size=self.vocab_size,
            kv_bytes_per_token=bytes_per_token(caches),
            batchable=all(hasattr(cache, "merge") for cache in caches),
            trimmable=cut_anywhere(caches),
            device=device.name(),
            dtype=self.dtype,
            weight_bytes=self.weight_bytes,
            memory_bytes=device.memory_bytes(),
            free_bytes=device.free_bytes(),
            padding_ratio=device.padding_ratio(),
        )


def load(path: Path, *, trust_remote_code: bool, kv_bits: int | None = None, dtype: str = "auto") -> LoadedModel:
    """Raises ModelError if the directory is broken, its architecture is unknown to mlx-lm, or its KV caches cannot have
    `kv_bits`. `dtype` as in LoadModel."""
    with _blaming_the_model(f"{path} cannot be loaded: "):
        model, config = load_model(path, lazy=True, strict=True, trust_remote_code=trust_remote_code)
        model = device.suit(model, dtype)
        mx.eval(model.parameters())
        if kv_bits and (reason := quantised.refusal(model, kv_bits)):
            raise ValueError(f"with --kv-bits {kv_bits}: {reason}")
        parameters: list[mx.array] = list(dict(tree_flatten(model.parameters())).values())
        return LoadedModel(
            model=model,
            config=config,
            context_tokens=_context_tokens(config),
            vocab_size=_vocabulary_size(model),
            eos_ids=_eos_ids(config),
            dtype=_main_dtype(parameters),
            weight_bytes=sum(array.nbytes for array in parameters),
            kv_bits=kv_bits,
        )


def check_weights(path: Path) -> None:
    """Raises ModelError unless the weights in `path` are those that its configuration asks for; reads none of them."""
    with _blaming_the_model(""):
        load_model(path, lazy=True, strict=True)


def is_supported(config: Config) -> bool:
    """Whether mlx-lm has the architecture that a config.json names as its model_type."""
    try:
        _get_classes(config)
    except (ValueError, AttributeError):
        return False
    return True


@contextmanager
def _blaming_the_model(prefix: str) -> Iterator[None]:
    """Turn any exception into a ModelError.

    Every architecture is code of its own in mlx-lm, and fails in its own way at a broken configuration.
    """
    try:
        yield
    except KeyError as error:
        raise ModelError(f"{prefix}its config.json lacks {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
        raise ModelError(f"{prefix}{reason}") from error


def _context_tokens(config: Config) -> int:
    text_config = config.get("text_config")
    for place in (config, text_config if isinstance(text_config, Mapping) else {}):
        for key in CONTEXT_KEYS:
            value = place.get(key)
            if isinstance(value, int) and value > 0:
                return value
    return UNSTATED_CONTEXT_TOKENS


def _vocabulary_size(model: Module) -> int:
    """The smaller of what the embedding has rows for and what one step has logits for.

    MLX checks no index, so an id beyond it would be a read outside the array. Only the shape of the logits is asked
    for: nothing is computed.
    """
    logits = model(mx.array([[0]]), cache=make_prompt_cache(model))
    embeddings = [module for module in model.modules() if isinstance(module, Embedding | QuantizedEmbedding)]
    rows = max((module.weight.shape[0] for module in embeddings), default=logits.shape[-1])
    return int(min(rows, logits.shape[-1]))


def _eos_ids(config: Config) -> tuple[int, ...]:
    """`eos_token_id` is an id, a list of ids, or missing. (mlx-lm puts generation_config.json's in its place.)"""
    value = config.get("eos_token_id")
    return tuple(item for item in (value if isinstance(value, list) else [value]) if isinstance(item, int))


def _main_dtype(parameters: list[mx.array]) -> str:
    nbytes: Counter[str] = Counter()
    for array in parameters:
        if mx.issubdtype(array.dtype, mx.floating):
            nbytes[str(array.dtype).removeprefix("mlx.core.")] += array.nbytes
    return nbytes.most_common(1)[0][0] if nbytes else "float32"
