"""The prefix cache's books: what serves a history, what is worth keeping, what is let go."""

import pytest

from actors.policies.pieces import cut, root_of
from actors.policies.prefix_cache import LEGACY_ENTRIES, WORTH_TOKENS, Freed, PrefixCache, chosen
from runtime.types import CacheStrategy, HitType, KvHandle, KvPiece

ROOT = root_of("")
BYTES = 10
HUGE = 10**9
END = 2
NO_STOPS: frozenset[int] = frozenset()

AUTO, AWARE, PAGED, LEGACY = CacheStrategy


def ids(first: int, length: int) -> tuple[int, ...]:
    """Ids that no other `first` gives."""
    return (first, *range(100, 99 + length))


def cache(
    strategy: CacheStrategy = PAGED, *, trimmable: bool = True, memory_tokens: int = 10_000, disk_tokens: int = 0
) -> PrefixCache:
    return PrefixCache(
        strategy=strategy,
        trimmable=trimmable,
        bytes_per_token=BYTES,
        memory_bytes=memory_tokens * BYTES,
        disk_bytes=disk_tokens * BYTES,
    )


def keep(books: PrefixCache, held: tuple[int, ...], begun: tuple[KvPiece, ...] = ()) -> tuple[KvPiece, ...]:
    """As the engine does what it is asked for."""
    pieces = books.chain(ROOT, held, begun)
    absent = books.absent(pieces)
    books.expect(handles(absent))
    books.keep(ROOT, pieces)
    books.arrived({piece.handle: BYTES * len(piece.token_ids) for piece in absent}, (), fetched=False)
    return pieces


def stops(pieces: tuple[KvPiece, ...]) -> list[int]:
    return [piece.stop for piece in pieces]


def handles(pieces: tuple[KvPiece, ...]) -> tuple[KvHandle, ...]:
    return tuple(piece.handle for piece in pieces)


@pytest.mark.parametrize(
    ("strategy", "trimmable", "expected"),
    [
        (AUTO, True, PAGED),
        (AUTO, False, AWARE),
        (PAGED, True, PAGED),
        (PAGED, False, AWARE),
        (AWARE, True, AWARE),
        (AWARE, False, AWARE),
        (LEGACY, True, LEGACY),
        (LEGACY, False, LEGACY),
    ],
)
def test_what_cannot_be_cut_cannot_be_paged(strategy: CacheStrategy, trimmable: bool, expected: CacheStrategy) -> None:
    assert chosen(strategy, trimmable=trimmable) is expected


@pytest.mark.parametrize(
    ("strategy", "trimmable", "expected"),
    [(PAGED, True, [64, 128, 150]), (AWARE, True, [150]), (LEGACY, True, [150]), (AWARE, False, [150])],
)
def test_strategies_differ_in_where_a_history_is_cut(
    strategy: CacheStrategy, trimmable: bool, expected: list[int]
) -> None:
    assert stops(cache(strategy, trimmable=trimmable).chain(ROOT, ids(1, 150))) == expected


@pytest.mark.parametrize(
    ("history", "tokens", "hit_type", "pieces"),
    [
        (ids(1, 200), 150, HitType.PREFIX, 3),
        (ids(1, 150), 149, HitType.EXACT, 3),
        (ids(1, 129), 128, HitType.SUPERSEQUENCE, 2),
        ((*ids(1, 70), 7), 70, HitType.LCP, 2),
        ((*ids(1, 64), 7), 64, HitType.LCP, 1),
    ],
)
def test_a_hit_never_serves_the_last_id_and_names_the_pieces_that_it_needs(
    history: tuple[int, ...], tokens: int, hit_type: HitType, pieces: int
) -> None:
    books = cache()
    kept = keep(books, ids(1, 150))
    hit = books.find(ROOT, history)
    assert hit
    assert (hit.tokens, hit.hit_type, hit.handles) == (tokens, hit_type, handles(kept)[:pieces])


def test_a_history_of_one_id_is_served_by_nothing() -> None:
    books = cache()
    keep(books, ids(1, 150))
    assert books.find(ROOT, ids(1, 1)) is None
    assert books.find(root_of("theirs"), ids(1, 150)) is None


def test_what_cannot_be_cut_serves_a_longer_history_only() -> None:
    books = cache(AWARE, trimmable=False)
    keep(books, ids(1, 100))
    assert books.find(ROOT, ids(1, 100)) is None
    assert books.find(ROOT, ids(1, 99)) is None
    hit = books.find(ROOT, ids(1, 101))
    assert hit
    assert (hit.tokens, hit.hit_type) == (100, HitType.PREFIX)


# --- plans ---


def test_a_prompt_is_kept_as_soon_as_it_is_computed_but_for_what_is_there_already() -> None:
    books = cache()
    keep(books, ids(1, 128))
    history = ids(1, 250)
    plan = books.plan(ROOT, history, NO_STOPS, books.find(ROOT, history))
    (checkpoint,) = plan.checkpoints
    assert stops(plan.pieces) == [64, 128, 192, 249]
    assert (checkpoint.tokens, stops(checkpoint.pieces)) == (249, [192, 249])


@pytest.mark.parametrize(("more", "checkpoints"), [(WORTH_TOKENS - 1, 0), (WORTH_TOKENS, 1)])
def test_a_short_rest_is_not_worth_keeping_on_the_way(more: int, checkpoints: int) -> None:
    books = cache()
    keep(books, ids(1, 128))
    history = ids(1, 128 + more + 1)
    hit = books.find(ROOT, history)
    assert len(books.plan(ROOT, history, NO_STOPS, hit).checkpoints) == checkpoints
    assert len(cache().plan(ROOT, ids(1, more + 1), NO_STOPS, None).checkpoints) == checkpoints


def test_without_memory_nothing_is_planned() -> None:
    assert cache(memory_tokens=0).plan(ROOT, ids(1, 500), NO_STOPS, None).checkpoints == ()


def test_what_cannot_be_cut_is_planned_at_the_ends_of_messages_that_are_not_there_yet() -> None:
    books = cache(AWARE, trimmable=False)
    history = (*ids(1, 99), END, *ids(5, 99), END, *ids(6, 99), END, 7, 8)
    (begun,) = keep(books, history[:100])
    plan = books.plan(ROOT, history, frozenset({END}), books.find(ROOT, history))
    assert plan.pieces[0] == begun
    assert stops(plan.pieces) == [100, 200, 300, 301]
    assert [(each.tokens, stops(each.pieces)) for each in plan.checkpoints] == [
        (200, [200]),
        (300, [300]),
        (301, [301]),
    ]


def test_what_cannot_be_cut_goes_on_from_the_checkpoints_that_are_still_there() -> None:
    books = cache(AWARE, trimmable=False)
    begun = cut(ROOT, ids(1, 150), (50, 100, 150))
    books.keep(ROOT, begun[:1])
    assert stops(books.chain(ROOT, ids(1, 180), begun)) == [50, 180]
    books.keep(ROOT, begun[:2])
    assert books.chain(ROOT, ids(1, 100), begun) == begun[:2]


# --- what is under way, and what is gone ---


def test_what_the_engine_was_asked_for_is_coming_until_it_has_answered_as_often() -> None:
    books = cache()
    (handle, *_) = handles(keep(books, ids(1, 64)))
    books.expect([handle])
    books.expect([handle])
    coming = []
    for _ in range(2):
        coming.append(books.is_coming([handle]))
        books.arrived({handle: 700}, (), fetched=False)
    assert [*coming, books.is_coming([handle])] == [True, True, False]
    assert books.memory.nbytes == 700


@pytest.mark.parametrize("fetched", [True, False])
def test_what_could_not_be_had_takes_all_that_needs_it_along_and_on_disk_if_it_was_to_come_from_there(
    fetched: bool,
) -> None:
    books = cache(disk_tokens=1000)
    pieces = keep(books, ids(1, 150))
    other = keep(books, (*ids(1, 64), 7))
    freed = books.arrived({}, [pieces[1].handle], fetched=fetched)
    assert freed == Freed(handles(pieces[1:]), handles(pieces[1:]) if fetched else ())
    assert books.find(ROOT, ids(1, 150)) is not None
    assert [books.memory.holds(piece.handle) for piece in other] == [True, True]


def test_what_never_got_to_the_engine_is_not_on_disk_either() -> None:
    books = cache(disk_tokens=1000)
    pieces = books.chain(ROOT, ids(1, 64))
    books.expect(handles(pieces))
    books.keep(ROOT, pieces)
    assert books.arrived({}, handles(pieces), fetched=False) == Freed(handles(pieces), handles(pieces))
    assert (len(books.memory), len(books.disk)) == (0, 0)


def test_what_was_not_written_is_still_in_memory_and_is_offered_to_the_disk_again() -> None:
    books = cache(disk_tokens=1000)
    pieces = keep(books, ids(1, 150))
    assert books.unwritten([pieces[1].handle]) == Freed((), handles(pieces))
    assert (books.memory.pieces, books.disk.nbytes) == (3, 0)
    assert books.absent(pieces) == pieces


def test_what_a_piece_truly_weighs_counts_in_memory_and_on_disk() -> None:
    books = cache(AWARE, trimmable=False, memory_tokens=1000, disk_tokens=1000)
    states = cut(ROOT, ids(1, 200), (100, 200))
    sizes = {states[0].handle: 4000, states[1].handle: 5000}
    books.keep(ROOT, states, sizes)
    assert (books.memory.nbytes, books.disk.nbytes) == (9000, 9000)
    books.shrink(0)
    assert books.bytes_of(states) == 9000
    history = ids(1, 300)
    assert books.on_disk(ROOT, history, None, room_bytes=8999) is None
    assert books.on_disk(ROOT, history, None, room_bytes=9000)
    books.keep(ROOT, states, memory_only=True)
    assert books.memory.nbytes == 9000


def test_the_disk_is_bound_by_what_pieces_turn_out_to_weigh() -> None:
    books = cache(disk_tokens=250)
    pieces = [keep(books, ids(first, 60)) for first in range(2)]
    books.arrived({pieces[1][0].handle: 2400}, (), fetched=False)
    assert books.shrink(HUGE).on_disk == handles(pieces[0])


def test_what_cannot_be_cut_serves_with_each_of_its_states_once_it_is_back_from_disk() -> None:
    books = cache(AWARE, trimmable=False)
    states = cut(ROOT, ids(1, 200), (100, 200))
    books.keep(ROOT, states, memory_only=True)
    hit = books.find(ROOT, (*ids(1, 150), 7))
    assert hit
    assert (hit.tokens, hit.handles) == (100, handles(states[:1]))


def test_a_chain_is_on_disk_as_far_as_the_disk_is_given_it() -> None:
    books = cache(AWARE, trimmable=False, disk_tokens=1000)
    states = cut(ROOT, ids(1, 200), (100, 200))
    books.keep(ROOT, states[:1], memory_only=True)
    books.keep(ROOT, states, {states[1].handle: 5})
    assert (len(books.memory), len(books.disk)) == (2, 0)
    assert books.unused([states[1].handle]) == Freed((), handles(states[1:]))


def test_of_pieces_that_nothing_leads_to_those_on_disk_stay_there_if_something_there_does() -> None:
    books = cache(disk_tokens=1000)
    pieces = keep(books, ids(1, 100))
    unknown = cut(ROOT, ids(2, 10), (10,))
    assert books.unused(handles(pieces)) == Freed()
    books.shrink(0)
    assert books.unused(handles((*pieces, *unknown))) == Freed(handles((*pieces, *unknown)), handles(unknown))


def test_pieces_are_asked_for_where_either_tier_lacks_them() -> None:
    books = cache(disk_tokens=1000)
    pieces = keep(books, ids(1, 100))
    assert books.absent(pieces) == ()
    books.shrink(0)
    assert books.absent(pieces) == pieces
    books.keep(ROOT, pieces, memory_only=True)
    assert books.absent(pieces) == ()
    memory_only = cut(ROOT, ids(3, 10), (10,))
    books.keep(ROOT, memory_only, memory_only=True)
    assert books.absent(memory_only) == memory_only


# --- disk ---


def listed(*sequences: tuple[int, ...]) -> list[tuple[KvPiece, int]]:
    return [(piece, 10 * len(piece.token_ids)) for each in sequences for piece in cache().chain(ROOT, each)]


def test_what_an_earlier_life_left_is_on_disk_and_what_leads_nowhere_is_freed() -> None:
    books = cache(disk_tokens=1000)
    found = listed(ids(1, 150))
    lost = listed(ids(2, 150))[1:]
    assert books.listed([*found, *lost]) == Freed((), tuple(piece.handle for piece, _ in lost))
    entry = books.on_disk(ROOT, ids(1, 200), None, room_bytes=HUGE)
    assert entry
    assert entry.handles == tuple(piece.handle for piece, _ in found)
    assert books.find(ROOT, ids(1, 200)) is None


@pytest.mark.parametrize(("in_memory", "worth"), [(150 - WORTH_TOKENS, True), (150 - WORTH_TOKENS + 1, False)])
def test_the_disk_is_read_where_it_serves_much_more_than_the_memory(in_memory: int, worth: bool) -> None:
    books = cache(disk_tokens=1000)
    books.listed(listed(ids(1, 150)))
    books.keep(ROOT, books.chain(ROOT, (*ids(1, in_memory), 7)), memory_only=True)
    history = ids(1, 200)
    assert bool(books.on_disk(ROOT, history, books.find(ROOT, history), room_bytes=HUGE)) is worth


@pytest.mark.parametrize(("memory_tokens", "fits"), [(150, True), (149, False)])
def test_what_does_not_fit_into_memory_is_not_read(memory_tokens: int, fits: bool) -> None:
    books = cache(memory_tokens=memory_tokens, disk_tokens=1000)
    books.listed(listed(ids(1, 150)))
    assert bool(books.on_disk(ROOT, ids(1, 200), None, room_bytes=HUGE)) is fits


# --- bounds ---


def test_memory_is_bound_by_the_moment_and_by_the_settings_and_the_disk_by_its_own() -> None:
    books = cache(memory_tokens=250, disk_tokens=350)
    kept = [keep(books, ids(first, 100)) for first in range(4)]
    freed = books.shrink(HUGE)
    assert freed == Freed(handles(kept[0]) + handles(kept[1]), handles(kept[0]))
    assert books.shrink(150 * BYTES) == Freed(handles(kept[2]))
    assert books.shrink(0) == Freed(handles(kept[3]))
    assert (books.memory.nbytes, books.disk.nbytes) == (0, 300 * BYTES)


@pytest.mark.parametrize(("strategy", "entries"), [(LEGACY, LEGACY_ENTRIES), (AWARE, 40), (PAGED, 40)])
def test_only_legacy_counts_sequences(strategy: CacheStrategy, entries: int) -> None:
    books = cache(strategy)
    for first in range(40):
        keep(books, ids(first, 10))
    books.shrink(HUGE)
    assert len(books.memory) == entries


def test_what_served_somebody_stays_longest() -> None:
    books = cache(LEGACY)
    for first in range(3):
        keep(books, ids(first, 10))
    hit = books.find(ROOT, ids(0, 11))
    assert hit
    books.use(hit.entry)
    books.shrink(10 * BYTES)
    assert [bool(books.find(ROOT, ids(first, 11))) for first in range(3)] == [True, False, False]


def test_cleared_means_both_tiers() -> None:
    books = cache(disk_tokens=1000)
    pieces = keep(books, ids(1, 100))
    assert books.clear() == Freed(handles(pieces), handles(pieces))
    assert (len(books.memory), len(books.disk)) == (0, 0)
