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


def extras() -> dict[str, list[str]]:
    """The packages that each extra brings on this platform, by extra."""
    found: dict[str, list[str]] = {}
    for each in requirements():
        for name in _extras_of(each):
            if each.marker is None or each.marker.evaluate({"extra": name}):
                found.setdefault(name, []).append(each.name)
    return found


def _of_extra(line: str, extra: str) -> str:
    """The line as it stands in a built package."""
    requirement, semicolon, marker = line.partition(";")
    return f"{requirement}; {f'({marker}) and ' if semicolon else ''}extra == '{extra}'"


def _extras_of(requirement: Requirement) -> Iterable[str]:
    text = str(requirement.marker or "")
    return [part.split('"')[1] for part in text.split("extra == ")[1:] if part.startswith('"')]


def _applying(every: Iterable[Requirement]) -> Iterable[Requirement]:
    """Those that hold on this platform without any extra."""
    return [each for each in every if each.marker is None or each.marker.evaluate({"extra": ""})]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
