"""Turns what a user calls a model into a directory that the engine can load."""

import os
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import ModelError
from runtime.models import embedded, hub
from runtime.models.convert import convert_once
from runtime.models.directory import check_directory
from runtime.models.store import Say


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that is whole and on this disk."""

    model_id: str
    """What the API calls it."""
    path: Path
    """A directory as mlx-lm reads it."""


def resolve(model: str | None, *, say: Say, trust_remote_code: bool = False) -> ModelFiles:
    """Find `model`, and fetch and convert it if need be.

    None and "default" are the embedded default; else it is the path of a directory or of a GGUF file, if there is
    one, else the id of a Hugging Face repository. Raises ModelError, in one line that begins with the model.
    """
    try:
        return _resolve(model, say, trust_remote_code)
    except ModelError as error:
        raise ModelError(f"model {model or 'default'}: {error}") from error


def _resolve(model: str | None, say: Say, trust_remote_code: bool) -> ModelFiles:
    if model is None or model == "default":
        return ModelFiles(embedded.MODEL_ID, embedded.fetch(say=say))
    path = Path(os.path.expanduser(model)).absolute()
    if os.path.isdir(path):
        check_directory(path, trust_remote_code=trust_remote_code)
        return ModelFiles(path.resolve().name, path)
    if os.path.isfile(path):
        return ModelFiles(path.stem, convert_once(path, say=say))
    if can_only_be_a_path(model):
        raise ModelError("no such file or directory")
    return ModelFiles(model, hub.fetch(model, trust_remote_code=trust_remote_code))


def can_only_be_a_path(model: str) -> bool:
    """Repository ids are `name` or `owner/name`, and none begins with a dot or ends in .gguf."""
    return model.startswith(("/", ".", "~")) or model.count("/") > 1 or model.endswith((".gguf", "/"))
