"""What is installed here, against what Troupe asks for, and the few facts of the machine that known issues hang on."""

import os
import platform
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from runtime import children
from runtime.engine import blas

PROJECT = "troupe"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the server runs."""

    python: tuple[int, ...]
    system: str
    """`Linux` or `Darwin`."""
    processor: str
    """As platform.machine() has it: `x86_64`, `arm64`, `aarch64`."""
    macos: tuple[int, ...] = ()
    """The version of macOS; empty elsewhere."""
    glibc: tuple[int, ...] = ()
    """The version of the C library; empty where it is another."""
    slow_blas: bool = False
    """Whether MLX's CPU backend has the reference BLAS only."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions by name, of what Troupe asks for and is installed."""
    wanted: Mapping[str, str] = field(default_factory=dict)
    """The ranges that it asks for here, by name; empty is any version."""


@cache
def surroundings() -> Surroundings:
    """Of this process; looked up once."""
    wanted = {str(canonicalize_name(each.name)): str(each.specifier) for each in _applying(requirements())}
    found = blas.find(os.environ.get("LD_PRELOAD", ""))
    return Surroundings(
        python=tuple(sys.version_info[:3]),
        system=platform.system(),
        processor=platform.machine(),
        macos=_numbers(platform.mac_ver()[0]),
        glibc=_numbers(platform.libc_ver()[1]),
        slow_blas=found is not None and not found.fast,
        packages={name: version for name in wanted if (version := _version(name)) is not None},
        wanted=wanted,
    )


def requirements() -> list[Requirement]:
    """What Troupe asks for, extras included: as pyproject.toml has it in a checkout, else as the package was built."""
    file = Path(children.HERE) / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        marked = [_of_extra(line, name) for name, lines in extras.items() for line in lines]
        return [Requirement(line) for line in (*project["dependencies"], *marked)]
    try:
        return [Requirement(line) for line in metadata.requires(PROJECT) or ()]
    except metadata.PackageNotFoundError:
        return []


def extras() -> dict[str, list[Requirement]]:
    """What each extra asks for on this platform, by extra."""
    every, found = requirements(), dict[str, list[Requirement]]()
    for name in sorted({name for each in every for name in _extras_of(each)}):
        found[name] = [each for each in every if name in _extras_of(each) and _holds(each, name)]
    return found


def extras_installed() -> dict[str, bool]:
    """Of each extra that an operator may want and that there is for this platform, whether all of it is here."""
    return {name: all(map(_is_here, asked)) for name, asked in extras().items() if asked and name != "dev"}


def _is_here(requirement: Requirement) -> bool:
    """With what its own extras bring: mlx[cuda13] is mlx and a package of kernels."""
    if _version(requirement.name) is None:
        return False
    own = [Requirement(line) for line in metadata.requires(requirement.name) or ()]
    wanted = {each.name for each in own for extra in requirement.extras if extra in _extras_of(each)}
    wanted &= {each.name for each in own if any(_holds(each, extra) for extra in requirement.extras)}
    return all(_version(name) is not None for name in wanted)


def _of_extra(line: str, extra: str) -> str:
    """The line as it stands in a built package."""
    requirement, semicolon, marker = line.partition(";")
    return f"{requirement}; {f'({marker}) and ' if semicolon else ''}extra == '{extra}'"


def _extras_of(requirement: Requirement) -> Iterable[str]:
    text = str(requirement.marker or "")
    return [part.split('"')[1] for part in text.split("extra == ")[1:] if part.startswith('"')]


def _applying(every: Iterable[Requirement]) -> Iterable[Requirement]:
    """Those that hold on this platform without any extra."""
    return [each for each in every if _holds(each, "")]


def _holds(requirement: Requirement, extra: str) -> bool:
    """Whether it is asked for on this platform, by someone who asks for `extra`."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
