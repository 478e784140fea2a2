"""What a Python process that we start needs in its environment, so that it runs this same code."""

import os
from collections.abc import Mapping
from pathlib import Path

HERE = str(Path(__file__).resolve().parent.parent)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, and `extra`; our packages can be imported whatever the working directory is."""
    path = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **(extra or {})}
