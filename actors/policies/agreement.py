"""How far two runs of one prompt say the same."""

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.types import TokenOutput


@dataclass(frozen=True, slots=True)
class Agreement:
    """What comparing runs gave."""

    places: int
    """Of two runs, as many as the longer one has tokens."""
    same: int
    """Places in which both have the same token."""
    first_difference: int | None
    """The first place in which they do not; None where there is none."""
    largest_logprob_difference: float | None
    """In the places before that one; None if nothing could be compared."""


def compare(one: Sequence[TokenOutput], other: Sequence[TokenOutput]) -> Agreement:
    """Of the tokens of two runs. A place that only one of them has is a difference."""
    pairs = list(zip(one, other, strict=False))
    same = [a.token_id == b.token_id for a, b in pairs]
    places = max(len(one), len(other))
    first = next((place for place in range(places) if place >= len(pairs) or not same[place]), None)
    differences = [
        abs(a.logprob - b.logprob) for a, b in pairs[:first] if a.logprob is not None and b.logprob is not None
    ]
    return Agreement(places, sum(same), first, max(differences, default=None))


def together(agreements: Sequence[Agreement]) -> Agreement:
    """All of them as one."""
    firsts = [each.first_difference for each in agreements if each.first_difference is not None]
    largest = [each.largest_logprob_difference for each in agreements if each.largest_logprob_difference is not None]
    return Agreement(
        places=sum(each.places for each in agreements),
        same=sum(each.same for each in agreements),
        first_difference=min(firsts, default=None),
        largest_logprob_difference=max(largest, default=None),
    )
