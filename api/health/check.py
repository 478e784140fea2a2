"""What a check finds, and how several of them count together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class CheckStatus(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It is served, but worse than it could be."""
    ERROR = "error"
    """Answers are wrong, do not end, or are refused."""
    UNKNOWN = "unknown"
    """Nobody has looked."""


_SEVERITY = (CheckStatus.UNKNOWN, CheckStatus.OK, CheckStatus.WARNING, CheckStatus.ERROR)
"""What nobody has looked at is no bad news: it makes nothing worse that is known."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check's result."""

    status: CheckStatus
    detail: str
    """For a person: one or more sentences."""
    mend: str | None = None
    """What to do about it: a command, a flag, or a sentence. None where there is nothing to mend."""
    figures: Mapping[str, object] = field(default_factory=dict)
    """What it was found by, in JSON's types."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A part of a check: most of them look at more than one thing."""

    status: CheckStatus
    detail: str
    mend: str | None = None


def worst(statuses: Iterable[CheckStatus]) -> CheckStatus:
    """The most severe; UNKNOWN if none is known."""
    return max(statuses, key=_SEVERITY.index, default=CheckStatus.UNKNOWN)


def together(findings: Iterable[Finding], *, fine: str, figures: Mapping[str, object]) -> Check:
    """One check of all findings, the worst first, with its way to mend; `fine` is the detail where there are none."""
    ordered = sorted(findings, key=lambda finding: _SEVERITY.index(finding.status), reverse=True)
    if not ordered:
        return Check(CheckStatus.OK, fine, None, figures)
    mend = next((finding.mend for finding in ordered if finding.mend), None)
    return Check(ordered[0].status, " ".join(finding.detail for finding in ordered), mend, figures)
