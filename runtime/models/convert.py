"""Converts GGUF files into model directories that are kept in TROUPE_HOME."""

import hashlib
from pathlib import Path

from runtime.errors import ModelError
from runtime.models.store import Say, keep


def kept_name(stem: str, sha256: str) -> str:
    """What the conversion of a GGUF file is called in TROUPE_HOME: by its name and what is in it."""
    return f"{stem}-{sha256[:12]}"


def convert_once(gguf: Path, *, say: Say) -> Path:
    """The model directory made of `gguf`; an equal file is converted once only. Raises ModelError."""
    try:
        sha256 = sha256_of(gguf)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}") from error

    def build(scratch: Path) -> Path:
        say(f"converting {gguf.name} for MLX")
        return convert_in(scratch, gguf)

    return keep(kept_name(gguf.stem, sha256), build, say=say)


def convert_in(scratch: Path, gguf: Path) -> Path:
    """Convert `gguf` into a directory inside `scratch`, and return it. Raises ModelError."""
    from runtime.mlx.gguf import convert  # noqa: PLC0415  (MLX is loaded only where it is needed)

    target = scratch / "model"
    target.mkdir()
    convert(gguf, target)
    return target


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
