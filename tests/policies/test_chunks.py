"""Where prompts are cut, and what a turn then holds of each."""

import pytest

from actors.policies.chunks import ANYWHERE, Chunks
from runtime.types import SequenceId

A, B, C = SequenceId(1), SequenceId(2), SequenceId(3)


@pytest.mark.parametrize(
    ("shares", "sent", "stops", "whole"),
    [
        ({A: 64}, {A: 0}, {A: 200}, {A: 64}),
        ({A: 100}, {A: 0}, {A: 200}, {A: 64}),
        ({A: 10}, {A: 64}, {A: 200}, {A: 64}),  # the oldest always gets on
        ({A: 4}, {A: 192}, {A: 200}, {A: 8}),
        ({A: 136}, {A: 64}, {A: 200}, {A: 136}),  # to its end
        ({A: 64, B: 63}, {A: 0, B: 0}, {A: 200, B: 64}, {A: 64}),  # the others only as far as there is room
        ({A: 64, B: 40, C: 130}, {A: 0, B: 0, C: 64}, {A: 64, B: 40, C: 500}, {A: 64, B: 40, C: 128}),
    ],
)
def test_shares_end_where_chunks_do(
    shares: dict[SequenceId, int],
    sent: dict[SequenceId, int],
    stops: dict[SequenceId, int],
    whole: dict[SequenceId, int],
) -> None:
    assert Chunks(64).whole(shares, sent, stops) == whole
    assert ANYWHERE.whole(shares, sent, stops) == shares


def test_a_share_is_cut_into_chunks_from_the_first_id_on() -> None:
    assert Chunks(64).cuts(64, 200) == [(64, 128), (128, 192), (192, 200)]
    assert ANYWHERE.cuts(5, 200) == [(5, 200)]
    assert [Chunks(64).floor(position) for position in (0, 63, 64, 130)] == [0, 0, 64, 128]
    assert ANYWHERE.floor(63) == 63
