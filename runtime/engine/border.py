"""The border around an engine: an error becomes a value, here and nowhere else."""

import importlib
import logging

from runtime.engine.commands import Command, CommandFailed, Loaded, Result
from runtime.engine.host import Beat, Engine, Factory
from runtime.errors import EngineFault, ModelError
from runtime.types import ModelFacts

log = logging.getLogger("troupe.engine")


def attempt(engine: Engine, command: Command) -> Result:
    """Execute `command`; whatever it raises comes back as CommandFailed."""
    try:
        return engine.execute(command)
    except ModelError as error:
        return CommandFailed(type(command).__name__, str(error), model_error=True)
    except Exception as error:
        log.exception("engine command %s raised", type(command).__name__)
        return CommandFailed(type(command).__name__, f"{type(error).__name__}: {error}")


def factory_named(path: str) -> Factory:
    """The factory at MODULE:ATTRIBUTE. Its module is imported when it is called: where the engine lives."""

    def make(beat: Beat) -> Engine:
        module, _, attribute = path.partition(":")
        engine: Engine = getattr(importlib.import_module(module), attribute)(beat)
        return engine

    return make


def start(factory: Factory, beat: Beat) -> Engine | CommandFailed:
    """Make the engine; whatever that raises comes back as CommandFailed."""
    try:
        return factory(beat)
    except Exception as error:
        log.exception("the engine did not start")
        return CommandFailed("start", f"{type(error).__name__}: {error}")


def raise_if_failed(result: Result) -> None:
    """Raise what a CommandFailed stands for.

    Raises:
        ModelError: the model is at fault.
        EngineFault: anything else is.
    """
    if isinstance(result, CommandFailed):
        raise ModelError(result.error) if result.model_error else EngineFault(f"{result.command}: {result.error}")


def facts_of(result: Result) -> ModelFacts:
    """What LoadModel found out; raises as `raise_if_failed` does."""
    raise_if_failed(result)
    if not isinstance(result, Loaded):
        raise EngineFault(f"LoadModel was answered by {type(result).__name__}")
    return result.facts
