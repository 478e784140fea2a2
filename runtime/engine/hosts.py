"""Which host the engine gets, by the settings."""

import importlib
from pathlib import Path

from runtime.engine.commands import LoadModel
from runtime.engine.host import Engine, Host
from runtime.engine.thread import ThreadHost
from runtime.settings import Settings


def make_host(settings: Settings, model: Path) -> Host:
    """A host for the model in directory `model`; every restart wants a new one."""
    return ThreadHost(_make_mlx_engine, LoadModel(str(model), settings.trust_remote_code))


def _make_mlx_engine() -> Engine:
    """MLX is imported where the engine lives: in its thread, when it starts."""
    engine: Engine = importlib.import_module("runtime.mlx.engine").MlxEngine()
    return engine
