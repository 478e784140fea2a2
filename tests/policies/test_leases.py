"""What running sequences take: never less than they hold, never more than the padding can make of it."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policies.leases import STEP_TOKENS, grew, leased_tokens, room
from runtime.types import SHORT_TOKENS

LENGTHS = st.lists(st.integers(1, 5000), max_size=10)
RATIOS = st.sampled_from([1.0, 1.5, 2.0, inf])


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0), (1, 256), (256, 256), (257, 512), (5000, 5120)])
def test_caches_grow_by_whole_steps(tokens: int, expected: int) -> None:
    assert room(tokens) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(254, 255, False), (255, 256, True), (256, 257, False), (10, 600, True), (300, 300, False)],
)
def test_more_room_is_needed_when_the_next_token_has_none(before: int, after: int, expected: bool) -> None:
    assert grew(before, after) is expected


@pytest.mark.parametrize(
    ("lengths", "padding_ratio", "expected"),
    [
        ((), 2.0, 0),
        ((1,), 2.0, 256),
        ((256, 256), 2.0, 512),
        ((10, 300), 2.0, 512 + 512),
        ((10, 300), 1.0, 512 + 512),
        ((10, 3000), 2.0, 512 + 3072),
        ((700, 3000), 2.0, 1536 + 3072),
        ((700, 3000), 1.0, 768 + 3072),
        ((2000, 3000), 2.0, 3072 + 3072),
        ((10, 3000), inf, 3072 + 3072),
    ],
)
def test_a_row_takes_what_it_may_be_padded_to_beside_the_longest(
    lengths: tuple[int, ...], padding_ratio: float, expected: int
) -> None:
    assert leased_tokens(lengths, padding_ratio) == expected


@given(LENGTHS, RATIOS)
def test_together_they_take_at_least_their_own_room_and_at_most_the_longest_s_each(
    lengths: list[int], padding_ratio: float
) -> None:
    taken = leased_tokens(lengths, padding_ratio)
    assert sum(map(room, lengths)) <= taken <= len(lengths) * room(max(lengths, default=0))


@given(LENGTHS, RATIOS, st.integers(1, 5000))
def test_one_more_never_takes_less(lengths: list[int], padding_ratio: float, more: int) -> None:
    assert leased_tokens([*lengths, more], padding_ratio) >= leased_tokens(lengths, padding_ratio) + room(more)


@given(st.integers(1, 5000), st.integers(0, STEP_TOKENS))
def test_while_it_is_not_told_that_a_row_grew_its_lease_holds_it(tokens: int, more: int) -> None:
    """A lease counts the token that comes next."""
    if not grew(tokens, tokens + more):
        assert room(tokens + 1) >= tokens + more + 1


def test_short_rows_share_a_batch_everywhere() -> None:
    assert leased_tokens([1, SHORT_TOKENS], 1.0) == 2 * SHORT_TOKENS
