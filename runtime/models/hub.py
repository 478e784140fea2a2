"""Fetches models from the Hugging Face Hub through its own library, cache and offline mode."""

import errno
from pathlib import Path

from runtime.errors import ModelError
from runtime.models.directory import WEIGHTS, check_config, check_directory

DESCRIPTION = ["*.json", "*.jinja", "*.txt", "tokenizer.model", "*.tiktoken"]
"""Everything but the weights: small, so it is fetched and checked before they are."""

CODE = ["*.py"]


def fetch(repo_id: str, *, trust_remote_code: bool) -> Path:
    """The snapshot of `repo_id` in the library's cache, downloaded if it is not there.

    A repository's Python files are fetched only with `trust_remote_code`. Raises ModelError.
    """
    description = [*DESCRIPTION, *CODE] if trust_remote_code else DESCRIPTION
    check_config(_snapshot(repo_id, description), trust_remote_code=trust_remote_code)
    path = _snapshot(repo_id, [*description, WEIGHTS])
    check_directory(path, trust_remote_code=trust_remote_code)
    return path


def _snapshot(repo_id: str, patterns: list[str]) -> Path:
    """Any error counts as a reason why there is no such model: the library's network layer has errors of its own."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (slow to import, and not always needed)

    try:
        return Path(snapshot_download(repo_id, allow_patterns=patterns))
    except Exception as error:
        raise ModelError(_reason(error)) from error


def _reason(error: Exception) -> str:
    from huggingface_hub import errors  # noqa: PLC0415

    match error:
        case errors.HFValidationError():
            return "neither a file or directory that exists nor the id of a Hugging Face repository"
        case errors.GatedRepoError():
            return "gated: accept its terms on the Hugging Face Hub and log in with `hf auth login`"
        case errors.RepositoryNotFoundError():
            return "neither a file or directory that exists nor a public repository on the Hugging Face Hub"
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            return "not in the Hugging Face cache, and the Hub cannot be reached"
        case OSError(errno=errno.ENOSPC):
            return "cannot be kept: the disk is full"
        case _:
            return (
                f"cannot be fetched from the Hugging Face Hub: {' '.join(str(error).split()) or type(error).__name__}"
            )
