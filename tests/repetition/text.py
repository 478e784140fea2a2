"""What the repetition policy is tried on: a text, what was asked for, and whether it may be ended."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What ought to become of a text."""

    FINE = "fine"
    """No policy ends it."""
    WANTED = "wanted"
    """It says the same for long, and somebody may want that: safe runs on, strict may end it."""
    LOOP = "loop"
    """It has run into a loop by accident: both policies end it."""


@dataclass(frozen=True, slots=True)
class Text:
    """One text; `name` is unique."""

    name: str
    kind: Kind
    text: str
    prompt: str = ""
    apart: bool = False
    """Not to be chosen limits on: it was made when they were chosen."""


def lines(*each: str) -> str:
    """Each on a line of its own."""
    return "".join(f"{line}\n" for line in each)
