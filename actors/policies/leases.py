"""What the KV caches of running sequences take."""

from collections.abc import Collection

from runtime.types import SHORT_TOKENS

STEP_TOKENS = 256
"""mlx-lm's caches grow by so many tokens at a time."""


def room(tokens: int) -> int:
    """How many tokens the cache of a sequence of so many has room for."""
    return -(-tokens // STEP_TOKENS) * STEP_TOKENS


def grew(before: int, after: int) -> bool:
    """Whether a sequence that grew from `before` to `after` tokens needs more room, the next token included."""
    return room(after + 1) > room(before + 1)


def leased_tokens(lengths: Collection[int], padding_ratio: float) -> int:
    """How many tokens' keys and values sequences of such lengths take together, at most.

    In a batch every row is padded to the longest of those that it shares the batch with.

    Args:
        padding_ratio: how many times its own length a row may be padded to, see ModelFacts.
    """
    longest = max(map(room, lengths), default=0)
    return sum(min(longest, room(_padded(length, padding_ratio, longest))) for length in lengths)


def _padded(length: int, padding_ratio: float, longest: int) -> int:
    return int(min(max(SHORT_TOKENS, padding_ratio * length), longest))
