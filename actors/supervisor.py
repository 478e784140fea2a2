"""Restarts what crashed, as often as its intensity allows, and swallows the crash: siblings never see it."""

import logging
from collections.abc import Awaitable, Callable

import anyio

from actors.clock import Clock
from actors.policies.restarts import Intensity, back_off_s, exhausted, recent
from runtime.errors import ModelError, RestartsExhausted

log = logging.getLogger("troupe.supervisor")

Life = Callable[[], Awaitable[None]]
"""Lives once: makes fresh actors and runs them until one raises. A group of children that live in one task
group die together (one_for_all); children with a Life each die alone (one_for_one)."""


class Supervisor:
    """Keeps lives going; all that it keeps share one intensity."""

    def __init__(self, name: str, intensity: Intensity, clock: Clock) -> None:
        self.name = name
        self.restarts = 0
        """Since the start, for the snapshot."""
        self._intensity = intensity
        self._clock = clock
        self._deaths: tuple[float, ...] = ()

    async def keep_alive(self, life: Life) -> None:
        """Run `life` again whenever it raises, until it returns or is cancelled.

        Raises:
            RestartsExhausted: it died once more than the intensity allows.
            ModelError: the model cannot be loaded; another try would end the same way.
        """
        while True:
            try:
                return await life()
            except Exception as error:
                self._bury(error)
            await anyio.sleep(back_off_s(self._deaths))

    def _bury(self, error: Exception) -> None:
        cause = root_cause(error)
        if isinstance(cause, ModelError):
            raise cause
        self._deaths = recent(self._deaths, now=self._clock(), intensity=self._intensity)
        if exhausted(self._deaths, self._intensity):
            times = f"{len(self._deaths)} times in {self._intensity.within_s:g} s"
            raise RestartsExhausted(f"{self.name} died {times}, last of {describe(cause)}") from cause
        self.restarts += 1
        log.error("%s died of %s; starting it afresh", self.name, describe(cause), exc_info=cause)


def root_cause(error: BaseException) -> BaseException:
    """The first plain exception inside nested groups: task groups wrap what their children raise."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
