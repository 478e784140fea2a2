"""Which host the engine gets, by the settings."""

import os
from pathlib import Path

from runtime import log
from runtime.engine import blas
from runtime.engine.border import factory_named
from runtime.engine.commands import LoadModel
from runtime.engine.host import Host
from runtime.engine.process import Patience, ProcessHost
from runtime.engine.thread import ThreadHost
from runtime.settings import Settings

MLX_ENGINE = "runtime.mlx.engine:MlxEngine"


def make_host(settings: Settings, model: Path, *, factory: str = MLX_ENGINE) -> Host:
    """A host for the model in directory `model`; every restart wants a new one.

    `factory` is MODULE:ATTRIBUTE of what makes the engine. It is imported where the engine lives.
    """
    cache_dir = os.path.expanduser(settings.cache_dir or "")  # No shell does it in a variable or a file.
    load = LoadModel(
        str(model),
        settings.trust_remote_code,
        settings.kv_bits,
        cache_dir,
        settings.dtype,
        settings.batch_invariant,
        settings.chunk_tokens,
    )
    if settings.engine == "thread":
        return ThreadHost(factory_named(factory), load)
    found = blas.find(os.environ.get("LD_PRELOAD", ""))
    patience = Patience(loading_s=settings.engine_load_timeout, working_s=settings.engine_hang_timeout)
    environment = log.environment(settings.log_format, settings.log_level)
    return ProcessHost(factory, load, patience, environment=environment | (found.environment if found else {}))
