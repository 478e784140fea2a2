"""What becomes of an open request when the engine room restarts."""

from enum import StrEnum

POISON_DEATHS = 2
"""Deaths in a row that a request may be on stage for before it is taken for their cause."""


class Fate(StrEnum):
    RESUME = "resume"
    """Back in line, to go on behind the tokens that were delivered."""
    FAIL = "fail"
    CLOSE = "close"
    """It had its last word; the news of that died with the room."""


def fate(*, ended: bool, stage_deaths: int) -> Fate:
    """Decide by whether the client has the last word, and by how many deaths in a row saw the request on stage."""
    if ended:
        return Fate.CLOSE
    return Fate.FAIL if stage_deaths >= POISON_DEATHS else Fate.RESUME
