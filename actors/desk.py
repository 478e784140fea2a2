"""The front desk: all that the text floor sees of the house."""

from collections.abc import Callable
from typing import Protocol

from actors.messages import Request
from actors.snapshots import HouseSnapshot
from runtime.types import CancelCause, ModelFacts, RequestId


class FrontDesk(Protocol):
    """Takes requests in. Nothing here waits; what becomes of a request comes back through its sink."""

    def now(self) -> float:
        """Seconds of the house's clock, for `Request.arrived_at` and `Request.deadline`."""
        ...

    def facts(self) -> ModelFacts | None:
        """What is known of the model; None until it is loaded for the first time."""
        ...

    def admit(self, requests: tuple[Request, ...]) -> None:
        """Ask for all of `requests`, or none, to come in. Each gets Accepted and later one last word, or Rejected."""
        ...

    def cancel(self, request_id: RequestId, cause: CancelCause) -> None:
        """End a request early; one that has ended, or was never let in, is ignored."""
        ...

    def clear_cache(self, cleared: Callable[[], None]) -> None:
        """Let go of all kept prefixes, in memory and on disk. `cleared` is called once they are gone: if the engine
        room restarts meanwhile, by its next life."""
        ...

    def snapshot(self) -> HouseSnapshot:
        """The state of every actor between two handlers."""
        ...
