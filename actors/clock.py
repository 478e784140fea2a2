"""Turns time into mail: actors have no clock, they are told."""

from collections.abc import Callable

import anyio

from actors.base import Ref
from actors.messages import Tick

Clock = Callable[[], float]
"""Seconds that never go back, from an arbitrary start."""


async def tick(listener: Ref[Tick], *, every_s: float, clock: Clock) -> None:
    """Tell `listener` the time, now and then every `every_s` seconds, until cancelled."""
    while True:
        listener.tell(Tick(clock()))
        await anyio.sleep(every_s)
