"""Puts models into TROUPE_HOME so that each is there whole or not at all, whoever is interrupted when."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from runtime.errors import ModelError
from runtime.models.home import models_home

SCRATCH = ".scratch-"
"""Begins the names of directories where models are being made: never those of models."""

Say = Callable[[str], None]
"""Tells the person at the terminal one line about what is going on."""


def keep(name: str, build: Callable[[Path], Path], *, say: Say) -> Path:
    """The model directory `name`, made by `build` if it is not there yet.

    `build` is given an empty directory to work in and returns the finished model inside it, which is then renamed
    into place. One process builds at a time; the others wait and find its result. Whatever a killed one has left is
    removed by the next that builds. Raises ModelError if the disk cannot be written.
    """
    target = models_home() / name
    try:
        if not target.is_dir():
            with _only_builder(say):
                if not target.is_dir():
                    _build_into(target, build)
    except OSError as error:
        raise ModelError(f"cannot write to {models_home()}: {error.strerror or error}") from error
    return target


@contextmanager
def _only_builder(say: Say) -> Iterator[None]:
    """Hold the lock of the store. The system frees it when a process dies, however it dies."""
    models_home().mkdir(parents=True, exist_ok=True)
    with (models_home() / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that is preparing a model")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_into(target: Path, build: Callable[[Path], Path]) -> None:
    for left_over in target.parent.glob(f"{SCRATCH}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    with TemporaryDirectory(prefix=SCRATCH, dir=target.parent) as scratch:
        os.rename(build(Path(scratch)), target)
