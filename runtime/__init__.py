"""TENSORS: the engine that owns MLX, the host it lives in, models on disk, settings."""
