"""`troupe doctor`: looks, judges, and writes down what it found."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console

from api.doctor import compute, finding, machine, models, running
from api.doctor.finding import Finding, State
from api.doctor.installation import installation
from api.health.installed import extras_installed, surroundings
from runtime import settings
from runtime.errors import SettingsError
from runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Question:
    """What doctor is asked about beside this machine."""

    model: str | None = None
    url: str | None = None
    api_key: str | None = None
    trust_remote_code: bool = False


def doctor(question: Question, *, json: bool = False) -> int:
    """Print what is found; the exit status: 0 when nothing is broken, else 1."""
    findings = tuple(findings_of(question))
    if json:
        print(finding.as_json(findings))
    else:
        finding.show(findings, Console(file=sys.stdout, width=None))
    return finding.exit_status(findings)


def findings_of(question: Question) -> Iterator[Finding]:
    """Everything, in the order in which it is best read. The device is measured meanwhile."""
    gauge, here = compute.Gauge(), surroundings()
    chosen = Settings()
    try:
        chosen = settings.load({})
    except SettingsError as error:
        yield Finding(State.BROKEN, "settings", str(error), "correct it, or unset it")
    found = models.here()
    box = machine.look(chosen, has_default=models.has_default(found))
    device = gauge.read(system=here.system, macos=here.macos)
    yield from installation(here, extras_installed())
    yield from machine.room(box, chosen)
    yield from compute.compute(device)
    yield from models.on_disk(found)
    if question.model:
        looked = models.look(question.model, found, trust_remote_code=question.trust_remote_code)
        memory, available = (device.memory, box.available) if device.device != "cuda" else (device.memory,) * 2
        yield from models.asked(looked, device=device.device, memory=memory, available=available)
    if question.url:
        yield from running.server(question.url, running.ask(question.url, question.api_key))
