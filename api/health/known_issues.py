"""Known issues of the things that Troupe stands on: when they apply, how to mend them, and who says so."""

from collections.abc import Callable
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from api.health.check import CheckStatus
from api.health.installed import Surroundings


@dataclass(frozen=True, slots=True)
class KnownIssue:
    applies: Callable[[Surroundings], bool]
    status: CheckStatus
    detail: str
    mend: str
    source: str
    """Where it is told, or measured."""


def _before(package: str, version: str) -> Callable[[Surroundings], bool]:
    def applies(here: Surroundings) -> bool:
        try:
            return Version(here.packages[package]) < Version(version)
        except (KeyError, InvalidVersion):
            return False

    return applies


INSTALLING = "https://ml-explore.github.io/mlx/build/html/install.html"

KNOWN_ISSUES = (
    KnownIssue(
        lambda here: here.python < (3, 11),
        CheckStatus.ERROR,
        "Python is older than 3.11: tomllib, StrEnum and exception groups are missing.",
        "make setup PYTHON=python3.11",
        "https://docs.python.org/3/whatsnew/3.11.html",
    ),
    KnownIssue(
        lambda here: here.system == "Linux" and here.slow_blas,
        CheckStatus.WARNING,
        "There is no OpenBLAS, and the BLAS in MLX's wheel for the CPU is the reference one: prompts are read about 15 "
        "times slower.",
        "apt-get install libopenblas0-pthread",
        "runtime/engine/blas.py: the default model on two x86-64 cores, mlx 0.32.4: 12 and 185 prompt tokens a second",
    ),
    KnownIssue(
        lambda here: here.system == "Linux" and () < here.glibc < (2, 35),
        CheckStatus.ERROR,
        "The C library is older than glibc 2.35, which MLX is built for.",
        "a newer distribution, such as Debian 12 or Ubuntu 22.04",
        INSTALLING,
    ),
    KnownIssue(
        lambda here: here.system == "Darwin" and here.processor == "x86_64",
        CheckStatus.ERROR,
        "Python runs as x86-64: MLX is made for Apple silicon, and there is no Metal under Rosetta.",
        "a native Python: platform.processor() says arm",
        INSTALLING,
    ),
    KnownIssue(
        lambda here: here.system == "Darwin" and () < here.macos < (14,),
        CheckStatus.ERROR,
        "macOS is older than 14, which MLX needs.",
        "macOS 15 or later",
        INSTALLING,
    ),
    KnownIssue(
        lambda here: here.system == "Darwin" and (14,) <= here.macos < (15,),
        CheckStatus.WARNING,
        "macOS is older than 15: memory cannot be kept wired, so a large model is paged out and in again.",
        "macOS 15 or later",
        "https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.set_wired_limit.html",
    ),
    KnownIssue(
        _before("mlx", "0.32.1"),
        CheckStatus.WARNING,
        "mlx is older than 0.32.1: some products are wrong on Metal (gather_mm, nvfp4), and kernels can be mixed up.",
        "pip install -U 'mlx>=0.32.1,<0.33'",
        "https://github.com/ml-explore/mlx/releases/tag/v0.32.1",
    ),
    KnownIssue(
        _before("transformers", "5"),
        CheckStatus.ERROR,
        "transformers is older than 5: tokenisers of newer models cannot be loaded.",
        "pip install -U 'transformers>=5,<6'",
        "https://github.com/ml-explore/mlx-lm/issues/682",
    ),
)
