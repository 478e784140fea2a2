"""Checks that a directory holds a model that mlx-lm can load, before anything is loaded."""

import json
from pathlib import Path

from runtime.errors import ModelError

WEIGHTS = "model*.safetensors"
"""The names of the files that mlx-lm reads weights from."""

INDEX = "model.safetensors.index.json"

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "*.tiktoken", "vocab.json", "vocab.txt")
"""Any one of these makes a tokenizer."""


def check_directory(path: Path, *, trust_remote_code: bool) -> None:
    """Raises ModelError unless `path` has a configuration, all of its weights, and a tokenizer."""
    check_config(path, trust_remote_code=trust_remote_code)
    if not any(path.glob(WEIGHTS)):
        raise ModelError(f"no weights: there is no {WEIGHTS} in it")
    missing = [name for name in sorted(_indexed_files(path)) if not (path / name).is_file()]
    if missing:
        raise ModelError(f"incomplete: of the weights that its index names, {', '.join(missing)} are missing")
    if not any(found for pattern in TOKENIZERS for found in path.glob(pattern)):
        raise ModelError(f"no tokenizer: there is none of {', '.join(TOKENIZERS)} in it")


def check_config(path: Path, *, trust_remote_code: bool) -> None:
    """Raises ModelError unless config.json names an architecture that mlx-lm has, or code to be trusted."""
    config = _read_json(path / "config.json")
    # Not auto_map: that is transformers' code for the model, which nobody here runs.
    if config.get("model_file"):
        if trust_remote_code:
            return
        raise ModelError("comes with code of its own (model_file in config.json): --trust-remote-code lets it run")
    if not isinstance(config.get("model_type"), str):
        raise ModelError("config.json names no model_type")
    from runtime.mlx.loader import is_supported  # noqa: PLC0415  (MLX is loaded only where it is needed)

    if not is_supported(config):
        raise ModelError(f"mlx-lm does not have its architecture, {config['model_type']}")


def _indexed_files(path: Path) -> set[str]:
    """The files that the index of a model in several parts names; none if there is no index."""
    if not (path / INDEX).is_file():
        return set()
    parts = _read_json(path / INDEX).get("weight_map")
    if not isinstance(parts, dict):
        raise ModelError(f"{INDEX} is broken: it has no weight_map")
    return {str(name) for name in parts.values()}


def _read_json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"not a model: there is no {path.name} in it") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.name} cannot be read: it is not a JSON object")
    return value
