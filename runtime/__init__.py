"""TENSORS: the engine that owns MLX, the host it lives in, models on disk, settings."""

__version__ = "0.1.0"
