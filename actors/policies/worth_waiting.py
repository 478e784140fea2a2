"""Whether a prompt waits for an older one that begins the same."""

from collections.abc import Iterable

from actors.policies.prefix_cache import WORTH_TOKENS

WAITED_PER_SPARED = 4
"""For each token that a prompt is spared it waits for so many of another's, at most: a short prompt does not wait for a
long one that has little in common with it."""


def worth_waiting(*, sent: int, shared: int, ahead: int, stops: Iterable[int], trimmable: bool) -> bool:
    """Whether something of the older prompt is about to be kept that spares enough of the younger one.

    Args:
        sent: how many leading ids of the younger prompt have been computed.
        shared: how many leading ids of the two are the same.
        ahead: how many leading ids of the older prompt have been computed.
        stops: behind which of its ids the older one is kept, where nobody has been told of it yet.
        trimmable: whether what is kept serves up to any id, or only up to where it was kept.
    """
    for stop in stops:
        spared = (min(stop, shared) if trimmable or stop <= shared else 0) - sent
        if spared >= WORTH_TOKENS and stop - ahead <= WAITED_PER_SPARED * spared:
            return True
    return False
