"""Is Troupe installed as it was made: Python, packages, extras, and what is known against them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from api.doctor.finding import Finding, State
from api.health.check import CheckStatus
from api.health.installed import Surroundings
from api.health.known_issues import KnownIssue
from api.health.versions import known_issues, package_findings

NAMED = ("mlx", "mlx-lm", "tokenizers", "transformers", "llguidance", "hypercorn", "quart", "anyio")
"""Those whose versions matter most, so that they are always shown."""

_STATES = {CheckStatus.ERROR: State.BROKEN, CheckStatus.WARNING: State.SLOW}


def installation(here: Surroundings, extras: Mapping[str, bool]) -> Iterator[Finding]:
    """`extras` says of each whether all of it is installed."""
    python = ".".join(map(str, here.python))
    if here.python >= (3, 11):
        yield Finding(State.OK, "python", f"{python}, {here.system} on {here.processor}{_macos(here)}")
    yield from _packages(here)
    yield from map(_known, known_issues(replace(here, slow_blas=False)))  # The BLAS is told with what it does.
    if extras:
        shown = ", ".join(f"{name} {'installed' if whole else 'not installed'}" for name, whole in extras.items())
        yield Finding(State.OK, "extras", shown)


def _macos(here: Surroundings) -> str:
    return f", macOS {'.'.join(map(str, here.macos))}" if here.macos else ""


def _packages(here: Surroundings) -> Iterator[Finding]:
    wrong = list(package_findings(here))
    for each in wrong:
        yield Finding(State.BROKEN, "packages", each.detail.rstrip("."), each.mend)
    if not here.wanted:
        yield Finding(State.MISSING, "packages", "what Troupe asks for cannot be found: it is not installed here")
    elif not wrong:
        shown = ", ".join(f"{name} {here.packages[name]}" for name in NAMED if name in here.packages)
        yield Finding(State.OK, "packages", f"all {len(here.wanted)} as Troupe wants them: {shown}")


def _known(issue: KnownIssue) -> Finding:
    return Finding(_STATES[issue.status], "known issue", f"{issue.detail.rstrip('.')} ({issue.source})", issue.mend)
