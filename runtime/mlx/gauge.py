"""What MLX computes on here, and how fast: `python -m runtime.mlx.gauge`, in the engine's environment, says it in JSON.

Doctor's child process: what is measured here is what an engine would have, and if MLX cannot be loaded, only this ends.
"""

import json
import time
from typing import Final

import mlx.core as mx

from runtime.mlx import device

MEASURED_S = 0.3

CPU_SHAPE: Final = (256, 1536, 576)
"""A layer of the default model, for a prompt of 256 tokens."""
GPU_SHAPE: Final = (4096, 4096, 4096)


def gauge() -> dict[str, object]:
    """The device and its memory in bytes, and the best of several products in GFLOP/s, in the type models run in."""
    name = device.name()
    kind, shape = (mx.float32, CPU_SHAPE) if name == "cpu" else (mx.bfloat16, GPU_SHAPE)
    return {
        "device": name,
        "device_name": str(mx.device_info().get("device_name", "")),
        "memory_bytes": device.memory_bytes(),
        "dtype": str(kind).removeprefix("mlx.core."),
        "gflops": round(_gflops(kind, *shape), 1),
    }


def _gflops(kind: mx.Dtype, rows: int, inner: int, columns: int) -> float:
    a, b = mx.random.normal((rows, inner)).astype(kind), mx.random.normal((inner, columns)).astype(kind)
    mx.eval(a, b, a @ b)
    best, end = float("inf"), time.perf_counter() + MEASURED_S
    while time.perf_counter() < end:
        began = time.perf_counter()
        mx.eval(a @ b)
        best = min(best, time.perf_counter() - began)
    return 2e-9 * rows * inner * columns / best


if __name__ == "__main__":
    print(json.dumps(gauge()))
