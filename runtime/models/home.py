"""Where Troupe keeps what it made itself, such as converted models."""

import os
import sys
from pathlib import Path


def home() -> Path:
    """$TROUPE_HOME, else `troupe` in the user's cache directory. It need not exist yet."""
    if own := os.environ.get("TROUPE_HOME"):
        return Path(own).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "troupe"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "troupe"


def models_home() -> Path:
    """Holds one directory per model, each whole."""
    return home() / "models"
