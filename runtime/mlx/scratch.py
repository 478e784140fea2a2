"""Files that are there whole or not at all: written under a name of their own, which tells whose it is."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

import psutil

ABANDONED_S = 3600.0
"""So long no file takes to be written: its process died, and its number is another's now."""

NAME = re.compile(r"\..+\.(\d+)\.[0-9a-f]+\.tmp")
"""The number is the process's."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write under, hidden, beside `path`. What is there in the end takes the place of `path`; after an
    exception it is gone."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{token_hex(4)}.tmp")
    try:
        yield scratch
        scratch.replace(path)
    except BaseException:
        with suppress(OSError):
            scratch.unlink()
        raise


def tidy(folder: Path) -> None:
    """Remove what was being written when its process died, as far as that is possible."""
    for path in folder.iterdir():
        if name := NAME.fullmatch(path.name):
            with suppress(OSError):
                if not psutil.pid_exists(int(name[1])) or time.time() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink()
