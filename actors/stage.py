"""The requests that run, and which kind of turn advances each."""

from dataclasses import dataclass

from actors import messages as m
from actors.policies.turns import Turn
from runtime.types import RequestId


@dataclass(slots=True)
class OnStage:
    """One request that runs."""

    request: m.Request
    turn: Turn = Turn.PREFILL
    """Which kind of turn advances it."""
    preempted: bool = False
    """It was told to go back in line."""
    cancel: m.Cancel | None = None
    """It was told to end; if it goes back in line first, it ends there."""


class Stage(dict[RequestId, OnStage]):
    """By request, in the order in which they came."""

    @property
    def background(self) -> tuple[RequestId, ...]:
        """Those that nobody waits for, the last to come first."""
        return tuple(name for name, each in reversed(self.items()) if each.request.background)

    @property
    def users(self) -> int:
        """How many of the others there are."""
        return len(self) - len(self.background)

    @property
    def leaving(self) -> bool:
        """Whether somebody is on the way back in line."""
        return any(each.preempted for each in self.values())

    @property
    def has_one_apart(self) -> bool:
        return any(each.request.apart for each in self.values())

    @property
    def youngest(self) -> RequestId:
        """Who arrived last: of the background, if any of it is here."""
        return max(self.background or tuple(reversed(self)), key=lambda name: self[name].request.arrived_at)

    def runs(self, turn: Turn) -> bool:
        """Whether turns of that kind advance anybody."""
        return any(each.turn is turn for each in self.values())

    def users_in(self, turn: Turn) -> tuple[RequestId, ...]:
        """Whom turns of that kind advance, the background left out."""
        return tuple(name for name, each in self.items() if each.turn is turn and not each.request.background)
