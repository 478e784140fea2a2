"""What doctor finds, and how it is written down."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

import orjson
from rich.console import Console
from rich.text import Text


class State(StrEnum):
    OK = "ok"
    SLOW = "slow"
    """It works, and could be faster."""
    MISSING = "missing"
    """It works without it, or fetches it."""
    BROKEN = "broken"
    """It does not work."""


COLOURS = {State.OK: "green", State.SLOW: "yellow", State.MISSING: "cyan", State.BROKEN: "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    state: State
    what: str
    detail: str
    mend: str | None = None
    """A command, a flag, or a few words; None where there is nothing to mend."""


def exit_status(findings: Iterable[Finding]) -> int:
    """0 when nothing is broken, else 1."""
    return int(any(finding.state is State.BROKEN for finding in findings))


def as_json(findings: Sequence[Finding]) -> str:
    body = {"status": exit_status(findings), "findings": [asdict(finding) for finding in findings]}
    return orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()


def show(findings: Sequence[Finding], console: Console) -> None:
    """One line each, aligned; in colour where the console has any."""
    widest = max((len(finding.what) for finding in findings), default=0)
    for finding in findings:
        line = Text(f"{finding.state:<8}", style=COLOURS[finding.state])
        line.append(f"{finding.what:<{widest}}  {finding.detail}", style="default")
        if finding.mend:
            line.append(f"  → {finding.mend}", style="bold default")
        console.print(line, soft_wrap=True, highlight=False)
