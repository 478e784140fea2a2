"""What the engine's process and the machine have in memory, and how some of it goes back."""

import ctypes

import mlx.core as mx
import psutil

from runtime.types import MemoryUsage


def measure() -> MemoryUsage:
    """Memory now: MLX's own counters, and the process and the machine as the system sees them."""
    system = psutil.virtual_memory()
    return MemoryUsage(
        active_bytes=mx.get_active_memory(),
        peak_bytes=mx.get_peak_memory(),
        cache_bytes=mx.get_cache_memory(),
        resident_bytes=psutil.Process().memory_info().rss,
        system_total_bytes=system.total,
        system_used_fraction=1 - system.available / system.total,
    )


def give_back() -> None:
    """Return memory that is free but kept for reuse to the system: MLX's, and, where the C library is glibc, malloc's.
    (Others return large blocks at once.)"""
    mx.clear_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
