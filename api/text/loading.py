"""Reads a model directory's tokeniser, and the ids that end a sequence by its configuration."""

import json
from pathlib import Path

from transformers import AutoTokenizer
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from runtime.errors import ModelError


def load_tokeniser(path: Path, trust_remote_code: bool) -> TokenizersBackend:
    """The tokeniser in a model directory, without ever looking elsewhere.

    Raises:
        ModelError: there is none, or none that the `tokenizers` library can run.
    """
    try:
        hf = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
    # Whatever is wrong with the files comes out as whatever the libraries stumble over first.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path}: the tokeniser cannot be loaded: {reason}") from None
    if not isinstance(hf, TokenizersBackend):
        raise ModelError(f"{path}: the tokeniser is of a kind that the tokenizers library cannot run")
    return hf


def configured_stop_ids(path: Path) -> frozenset[int]:
    """The end-of-sequence ids that a model directory's own files name."""
    return frozenset().union(*stop_ids_by_file(path).values())


def stop_ids_by_file(path: Path) -> dict[str, frozenset[int]]:
    """The same by the name of the file; those that name none are missing."""
    found: dict[str, frozenset[int]] = {}
    for name in ("config.json", "generation_config.json"):
        try:
            # Python's own json: configurations hold numbers such as Infinity.
            settings = json.loads((path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # A config.json that cannot be read is the engine's to refuse; mlx-lm passes over the other.
        if isinstance(settings, dict) and (ids := ids_in(settings.get("eos_token_id"))):
            found[name] = ids
    return found


def ids_in(value: object) -> frozenset[int]:
    """`eos_token_id` is an id, a list of ids, or missing."""
    return frozenset(item for item in (value if isinstance(value, list) else [value]) if isinstance(item, int))
