"""Pieces: what they cover, and that their names are names of their contents."""

import struct
from hashlib import blake2b
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policies.pieces import block_stops, chains, checkpoint_stops, cut, root_of
from runtime.types import KvHandle, KvPiece

Ids = tuple[int, ...]
ROOT = root_of("")
SALTS = st.sampled_from(["", "a", "b"])
CHUNKS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=3).map(tuple), max_size=4)
"""A history as the pieces that it is to be cut into."""
END = 2
"""The stop id in these prompts."""


def _history(chunks: list[Ids]) -> Ids:
    return tuple(id_ for chunk in chunks for id_ in chunk)


def _stops(chunks: list[Ids]) -> list[int]:
    return list(accumulate(map(len, chunks)))


@given(CHUNKS, st.lists(st.integers(0, 1), max_size=3).map(tuple))
def test_pieces_cover_the_history_up_to_the_last_stop(chunks: list[Ids], left_over: Ids) -> None:
    pieces = cut(ROOT, _history(chunks) + left_over, _stops(chunks))
    assert [piece.token_ids for piece in pieces] == chunks
    assert [piece.stop for piece in pieces] == _stops(chunks)
    assert [piece.start for piece in pieces] == [0, *_stops(chunks)][: len(chunks)]
    assert [piece.parent for piece in pieces] == [ROOT, *(piece.handle for piece in pieces)][: len(chunks)]


@given(CHUNKS, st.integers(0, 4))
def test_a_chain_that_is_cut_further_is_the_one_cut_at_once(chunks: list[Ids], count: int) -> None:
    whole = cut(ROOT, _history(chunks), _stops(chunks))
    assert cut(ROOT, _history(chunks), _stops(chunks)[count:], whole[:count]) == whole


@given(SALTS, CHUNKS, SALTS, CHUNKS)
def test_two_pieces_have_one_name_where_everything_up_to_their_ends_is_equal_and_only_there(
    salt: str, chunks: list[Ids], other_salt: str, other_chunks: list[Ids]
) -> None:
    ours = cut(root_of(salt), _history(chunks), _stops(chunks))
    theirs = cut(root_of(other_salt), _history(other_chunks), _stops(other_chunks))
    for i, one in enumerate(ours, start=1):
        for j, other in enumerate(theirs, start=1):
            equal = salt == other_salt and chunks[:i] == other_chunks[:j]
            assert (one.handle == other.handle) is equal


def test_the_same_tokens_behind_another_beginning_have_another_name() -> None:
    (_, one), (_, other) = cut(ROOT, (1, 2, 3), (2, 3)), cut(ROOT, (1, 4, 3), (2, 3))
    assert one.token_ids == other.token_ids
    assert one.handle != other.handle


def test_a_name_is_a_digest_of_the_parents_name_and_the_ids() -> None:
    """Names outlive the process, in the files of --cache-dir."""
    first, second = cut(ROOT, (7, 300, 2**32 - 1), (2, 3))
    named = [(ROOT, (7, 300), first), (first.handle, (2**32 - 1,), second)]
    for parent, ids, piece in named:
        data = parent + struct.pack(f"<{len(ids)}I", *ids)
        assert piece.handle == blake2b(data, digest_size=16, person=b"troupe.piece").digest()


def test_an_id_that_has_no_room_is_an_error_and_not_another_id() -> None:
    with pytest.raises(OverflowError):
        cut(ROOT, (2**32,), (1,))


def test_no_salt_gives_a_root_that_is_the_name_of_a_piece() -> None:
    parent = KvHandle(b"0123456789abcdef")
    (piece,) = cut(parent, (0x41414141,), (1,))
    assert root_of("0123456789abcdefAAAA") != piece.handle


def test_every_text_is_a_salt_of_its_own() -> None:
    salts = ["", "a", "A", "a\0", "é", "e\u0301", "\ud800", "\udfff"]
    roots = {root_of(salt) for salt in salts}
    assert len(roots) == len(salts)
    assert {len(root) for root in roots} == {16}


def test_chains_are_put_together_from_their_pieces_in_any_order() -> None:
    system, hello, again = cut(ROOT, (1, 2, 3), (1, 2, 3))
    (_, other) = cut(ROOT, (1, 9), (1, 2))
    assert chains([again, other, system, hello], every=False) == [(system, hello, again), (system, other)]
    assert chains([again, system, hello], every=True) == [(system, hello, again), (system,), (system, hello)]


def test_a_piece_whose_beginning_is_not_there_is_in_no_chain() -> None:
    system, hello, again = cut(ROOT, (1, 2, 3), (1, 2, 3))
    assert chains([again, hello], every=True) == []
    assert chains([again, system], every=True) == [(system,)]


def test_pieces_that_contradict_each_other_are_in_no_chain() -> None:
    a, b, c = (KvHandle(bytes([i]) * 16) for i in range(3))
    round_and_round = [KvPiece(a, b, 1, (7,)), KvPiece(b, a, 1, (7,))]
    with_a_gap = [KvPiece(c, ROOT, 0, (7,)), KvPiece(a, c, 5, (7,))]
    assert chains(round_and_round, every=True) == []
    assert chains(with_a_gap, every=True) == [(with_a_gap[0],)]


@pytest.mark.parametrize(
    ("tokens", "stops"),
    [
        (0, ()),
        (1, (1,)),
        (63, (63,)),
        (64, (64,)),
        (65, (64, 65)),
        (128, (64, 128)),
        (200, (64, 128, 192, 200)),
    ],
)
def test_blocks_have_64_tokens_and_the_rest_is_a_piece(tokens: int, stops: Ids) -> None:
    assert block_stops(tokens) == stops


@pytest.mark.parametrize(
    ("prompt", "first", "stops"),
    [
        ((1,), 0, ()),
        ((1, 1), 0, (1,)),
        ((1, 1, 1, 1), 0, (3,)),
        ((1, 1, 1, 1), 2, (3,)),
        ((1, 1, 1, 1), 3, ()),
        ((1, END, 1, 1), 0, (2, 3)),
        ((1, END, 1, 1), 1, (2, 3)),
        ((1, END, 1, 1), 2, (3,)),
        ((END, 1, END, 1), 0, (1, 3)),
        ((1, 1, END), 0, (2,)),
        ((END,), 0, ()),
        ((END, END, END, 1, 1), 0, (1, 2, 3, 4)),
        ((END, END, END, END, 1, 1), 0, (1, 3, 4, 5)),
        ((1, END, 1, END, 1, END, 1, END, 1, 1), 0, (2, 6, 8, 9)),
        ((1, END, 1, END, 1, END, 1, END, 1, 1), 2, (6, 8, 9)),
        ((1, END, 1, END, 1, END, 1, END, 1, 1), 7, (8, 9)),
        ((1, END, 1, END, 1, END, 1, END), 0, (2, 4, 6, 7)),
    ],
)
def test_checkpoints_are_the_first_message_the_last_two_and_all_but_the_last_id(
    prompt: Ids, first: int, stops: Ids
) -> None:
    assert checkpoint_stops(prompt, frozenset({END, 9}), first) == stops
