"""What becomes of an open request when the engine room restarts."""

from enum import StrEnum

POISON_DEATHS = 2
"""Deaths in a row that a request is blamed for before it is taken for their cause."""


class Fate(StrEnum):
    RESUME = "resume"
    """Back in line, to go on behind the tokens that were delivered."""
    FAIL = "fail"
    CLOSE = "close"
    """It had its last word; the news of that died with the room."""


def fate(*, ended: bool, blamed: int) -> Fate:
    """Decide by whether the client has the last word, and by how many deaths in a row the request is blamed for."""
    if ended:
        return Fate.CLOSE
    return Fate.FAIL if blamed >= POISON_DEATHS else Fate.RESUME
