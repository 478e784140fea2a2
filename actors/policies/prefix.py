"""How much of a prompt a stored sequence can serve."""

from runtime.types import HitType


def common_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many leading ids two sequences share. Halves the range rather than stepping: slices compare in C."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def usable_tokens(history: tuple[int, ...], shared: int) -> int:
    """How many of `shared` cached ids may be used: all but the last id of a history, which the first decode step
    has to be fed."""
    return min(shared, len(history) - 1)


def hit_type(history: tuple[int, ...], stored: tuple[int, ...], shared: int) -> HitType:
    """Name the relation between a prompt and the stored sequence that shares `shared` leading ids with it."""
    if shared == 0:
        return HitType.MISS
    if shared == len(history) == len(stored):
        return HitType.EXACT
    if shared == len(stored):
        return HitType.PREFIX
    return HitType.SUPERSEQUENCE if shared == len(history) else HitType.LCP
