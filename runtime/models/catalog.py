"""Lists the models that are on this disk, without loading anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from runtime.models import embedded
from runtime.models.home import models_home
from runtime.models.store import SCRATCH


class ModelKind(StrEnum):
    """Where a model came from."""

    DEFAULT = "default"
    GGUF = "gguf"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that can be served without fetching anything."""

    name: str
    """Of the default and of hub models what to call them on the command line; of a GGUF file its own name."""
    kind: ModelKind
    path: Path
    """Its directory; can be served by this path too."""
    bytes: int
    """On disk."""


def list_models() -> tuple[LocalModel, ...]:
    """What is in TROUPE_HOME, then what is in the Hugging Face cache with all that makes a model for mlx-lm."""
    return (*_converted(), *_from_hub())


def _converted() -> Iterator[LocalModel]:
    for path in sorted(models_home().glob("*/")):
        if path.name == embedded.KEPT_NAME:
            yield LocalModel("default", ModelKind.DEFAULT, path, _size(path))
        elif not path.name.startswith(SCRATCH):
            stem, _, _ = path.name.rpartition("-")
            yield LocalModel(stem, ModelKind.GGUF, path, _size(path))


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir())


def _from_hub() -> Iterator[LocalModel]:
    from huggingface_hub import CacheNotFound, scan_cache_dir  # noqa: PLC0415  (slow to import)

    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        return
    for repo in sorted(cache.repos, key=lambda repo: repo.repo_id):
        for revision in sorted(repo.revisions, key=lambda revision: revision.last_modified, reverse=True)[:1]:
            names = {file.file_name for file in revision.files}
            if "config.json" in names and any(name.endswith(".safetensors") for name in names):
                yield LocalModel(repo.repo_id, ModelKind.HUB, revision.snapshot_path, repo.size_on_disk)
