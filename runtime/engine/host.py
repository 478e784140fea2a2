"""What an engine and a host promise; both ThreadHost and whatever tests put in its place keep it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import anyio.abc

from runtime.engine.commands import Command, Result
from runtime.types import ModelFacts

Deliver = Callable[[Result, float], None]
"""Takes a result and when it was ready, in seconds of the host's clock. Called on the event loop; must not block."""


Beat = Callable[[str], None]
"""An engine calls it from its loops, to show that it is at work, and what on."""


class Engine(Protocol):
    """Executes one command at a time, always in the thread that made it."""

    def execute(self, command: Command) -> Result:
        """Carry out `command`. Raises what went wrong: ModelError if the model is at fault, anything else
        if not. After a raise the engine must not be used again."""
        ...


Factory = Callable[[Beat], Engine]
"""Makes an engine, in the thread it will live in."""


class EngineRef(Protocol):
    """All that an actor knows of the engine."""

    def submit(self, command: Command, deliver: Deliver) -> None:
        """Hand over a command; `deliver` gets its result on the event loop, later."""
        ...


@dataclass(frozen=True, slots=True)
class Vitals:
    """How an engine is doing, as its host sees it."""

    pid: int
    """Of the process it lives in."""
    doing: str
    """What it was at when it was last heard of."""
    silent_s: float
    """How long nothing has been heard of it; 0 while it has nothing to do."""
    under_way: int
    """Commands that it has not answered."""


class Host(EngineRef, Protocol):
    """Where an engine lives. Commands are executed in the order of submission; each is answered by exactly
    one result, in the same order, unless the host dies first."""

    async def run(self, *, task_status: anyio.abc.TaskStatus[ModelFacts]) -> None:
        """Load the model, report its facts through `task_status`, then serve until cancelled.

        Raises:
            ModelError: the model cannot be loaded; do not try again.
            EngineFault: the engine died.
        """
        ...

    def vitals(self) -> Vitals:
        """How the engine is doing, while `run` serves."""
        ...
