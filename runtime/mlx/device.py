"""The one place that knows what differs between MLX's devices: CPU, Metal and CUDA."""

from math import inf
from typing import Literal

import mlx.core as mx
import psutil
from mlx.nn.layers.base import Module
from mlx_lm.utils import dequantize_model, maybe_set_recommended_wired_limit

from runtime.types import SHORT_TOKENS

DeviceName = Literal["cpu", "metal", "cuda"]


def name() -> DeviceName:
    """Where MLX computes unless told otherwise."""
    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def memory_bytes() -> int:
    """All the memory MLX may use: the machine's on the CPU, what Metal recommends, the card's on CUDA."""
    key = {"cpu": "", "metal": "max_recommended_working_set_size", "cuda": "total_memory"}[name()]
    return int(mx.device_info().get(key, psutil.virtual_memory().total))


def free_bytes() -> int:
    """How much of it nobody uses now, as far as this process can see."""
    available = psutil.virtual_memory().available
    if name() == "cpu":
        return available
    unused = max(0, memory_bytes() - mx.get_active_memory())
    return min(unused, available) if name() == "metal" else unused


REUSED_FRACTION = 0.05


def limit_reuse() -> None:
    """Have MLX keep freed buffers for reuse up to a fraction of the memory only: they are in nobody's budget. On the
    CPU it keeps 32 MiB of them by itself."""
    if name() != "cpu":
        mx.set_cache_limit(round(memory_bytes() * REUSED_FRACTION))


def stay_resident() -> None:
    """Have Metal keep what MLX allocates in memory, as far as the system lets it (ops/configure_mlx.sh raises that):
    what is paged out meanwhile has to come back before it computes again. Macs before macOS 15 take no notice."""
    if name() == "metal":
        maybe_set_recommended_wired_limit()


def suit(model: Module, dtype: str = "auto") -> Module:
    """Give a lazily loaded `model` the form that is fastest here, or `dtype` if it is not `auto`.

    On the CPU that is plain float32: quantised products do not gain from batching, and float16 is 30 times slower.
    Widening the scales first means that each weight is rounded once at most. A GPU keeps the weights as they are.
    """
    if name() == "cpu":
        model.set_dtype(mx.float32)
        model = dequantize_model(model)
        model.set_dtype(mx.float32)
    if dtype != "auto":
        model.set_dtype(getattr(mx, dtype))
    return model


def padding_ratio() -> float:
    """How many times its own length a longer row may be padded to in a batch.

    A GPU reads the weights once a step, whoever takes part, so there all do. On the CPU rows cost as much together as
    apart, so that padding would only add to it.
    """
    return 2.0 if name() == "cpu" else inf


def may_share_a_batch(tokens: float, other_tokens: float) -> bool:
    """Whether rows of these lengths belong in one batch, where all are padded to the longest. One of infinite length
    shares it with none."""
    if inf in (tokens, other_tokens):
        return False
    longer, shorter = max(tokens, other_tokens), min(tokens, other_tokens)
    return longer <= max(SHORT_TOKENS, padding_ratio() * shorter)
