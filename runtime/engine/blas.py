"""Finds a fast BLAS for MLX's CPU backend on Linux: its wheel carries the reference one, which is many times slower."""

import platform
from dataclasses import dataclass
from pathlib import Path

PLACES = (
    "/usr/lib/*/openblas-pthread/libblas.so.3",
    "/usr/lib/*/openblas-openmp/libblas.so.3",
    "/usr/lib/*/openblas*/libblas.so.3",
    "/usr/lib64/libopenblasp.so.0",
    "/usr/lib64/libopenblas.so.0",
    "/usr/lib/libopenblas.so.0",
)
"""Where distributions put OpenBLAS: Debian's and Ubuntu's alternatives first, then Fedora's, then Arch's."""


@dataclass(frozen=True, slots=True)
class Blas:
    """What there is to preload, and one line about it for the operator."""

    environment: dict[str, str]
    said: str
    fast: bool = True


def find(inherited: str = "", *, system: str | None = None, root: Path = Path("/")) -> Blas | None:
    """What the engine's process should be started with; None where MLX brings what it needs.

    Args:
        inherited: LD_PRELOAD as it is; what an operator preloads stays.
    """
    if (system or platform.system()) != "Linux":
        return None
    if "blas" in inherited:
        return Blas({}, f"BLAS: {inherited} is preloaded already")
    for place in PLACES:
        for found in sorted(root.glob(place.removeprefix("/"))):
            preload = f"{found} {inherited}".strip()
            return Blas({"LD_PRELOAD": preload}, f"BLAS: {found} is preloaded into the engine")
    slow = "BLAS: no OpenBLAS found, so the CPU is many times slower: apt-get install libopenblas0-pthread"
    return Blas({}, slow, fast=False)
