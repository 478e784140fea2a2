"""Who comes on stage next, and who makes way: what nobody waits for takes nobody's place, and yet gets done."""

from dataclasses import dataclass
from enum import StrEnum

PATIENCE = 256
"""Turns of others that the background lets pass before it takes what it can get."""


class Who(StrEnum):
    USER = "user"
    """A request that somebody waits for."""
    BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class Scene:
    """The stage and the two lines before it."""

    seats: int
    alone: bool = False
    """One user at a time, and none beside the background, which is company for itself."""
    users: int = 0
    """On stage."""
    background: int = 0
    """On stage, those on the way out among them."""
    leaving: bool = False
    """Somebody is on the way out already."""
    user_waits: bool = False
    barred: bool = False
    """The first user in line may not come on whatever room there is: it is a suspect, and another is on trial."""
    starved: bool = False
    """It waits for KV bytes."""
    background_waits: bool = False
    """And neither for KV bytes nor, if its first one is to run apart, for another that does: each of those costs every
    step a pass through the model of its own."""
    passed_over: int = 0
    """Turns that users have had while the background waited, since all of it was done."""

    @property
    def is_full(self) -> bool:
        return self.users + self.background >= self.seats

    @property
    def is_due(self) -> bool:
        """The background has waited long enough."""
        return self.passed_over >= PATIENCE


def next_on(scene: Scene) -> Who | None:
    """Whose line is to send its first one on stage; None: nobody comes on now."""
    if scene.is_full or (scene.alone and scene.users):
        return None
    if scene.alone and scene.is_due and (scene.background or scene.background_waits):
        return Who.BACKGROUND if scene.background_waits else None
    if scene.user_waits:
        ready = not (scene.barred or scene.starved or (scene.alone and scene.background))
        return Who.USER if ready else None
    if scene.background_waits and (not scene.users or scene.is_due):
        return Who.BACKGROUND
    return None


def to_make_way(scene: Scene) -> int:
    """How many of the background on stage have to go back in line for a user who waits: none, one or all."""
    if not scene.user_waits or scene.barred or not scene.background:
        return 0
    if scene.alone:
        return 0 if scene.users or scene.is_due else scene.background
    return int((scene.is_full or scene.starved) and not scene.leaving)
