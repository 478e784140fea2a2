"""A tier's books against some that recount everything, and what they mean for prompts."""

from collections import OrderedDict
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from actors.policies.pieces import cut, root_of
from actors.policies.tier import Entry, Tier
from runtime.types import KvHandle, KvPiece

Ids = tuple[int, ...]
CHUNKS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=2).map(tuple), min_size=1, max_size=4)
"""A sequence as the pieces that it is cut into."""
ROOTS = (root_of("a"), root_of("b"))
HUGE = 10**9


class _Books(RuleBasedStateMachine):
    """Does to a tier and to a list of entries the same, and compares them after every step."""

    trimmable = True

    def __init__(self) -> None:
        super().__init__()
        self.tier = Tier(trimmable=self.trimmable)
        self.entries: list[Entry] = []
        """The least recently used first."""
        self.sizes: dict[KvHandle, int] = {}
        self.evictions = 0

    # What the tier should do, the slow way.

    def kept(self) -> set[KvHandle]:
        return {handle for entry in self.entries for handle in entry.handles}

    def drop(self, entries: list[Entry]) -> set[KvHandle]:
        """Forget them; the pieces that were theirs alone."""
        before = self.kept()
        self.entries = [entry for entry in self.entries if entry not in entries]
        return before - self.kept()

    def touch(self, entry: Entry) -> None:
        beginnings = sorted((e for e in self.entries if _begins(entry, e)), key=_length, reverse=True)
        used = [entry, *(e for e in beginnings if e is not entry)]
        self.entries = [e for e in self.entries if e not in used] + used

    def is_over(self, nbytes: int, entries: int, pieces: int) -> bool:
        kept = self.kept()
        return sum(self.sizes[h] for h in kept) > nbytes or len(self.entries) > entries or len(kept) > pieces

    def pick(self, data: st.DataObject) -> Entry:
        return data.draw(st.sampled_from(self.entries))

    # What is done to both.

    @rule(root=st.sampled_from(ROOTS), chunks=CHUNKS, sizes=st.lists(st.integers(0, 9), min_size=4, max_size=4))
    def add(self, root: KvHandle, chunks: list[Ids], sizes: list[int]) -> None:
        pieces = _pieces(root, chunks)
        ids = tuple(id_ for chunk in chunks for id_ in chunk)
        handles = {piece.handle for piece in pieces}
        given = dict(zip((piece.handle for piece in pieces), sizes, strict=False))
        serving = [e for e in self.entries if e.root == root and self.serves(e, ids) == len(ids)]

        entry, freed = self.tier.add(root, pieces, given)

        if serving:
            assert entry in serving
            assert set(freed) == handles - self.kept()
        else:
            assert (entry.root, entry.token_ids, entry.handles) == (root, ids, tuple(given))
            self.sizes |= {handle: size for handle, size in given.items() if handle not in self.kept()}
            self.entries.append(entry)
            replaced = [e for e in self.entries if self.trimmable and e is not entry and _begins(entry, e)]
            assert set(freed) == self.drop(replaced)
        assert len(freed) == len(set(freed))
        self.touch(entry)

    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        if self.entries:
            entry = self.pick(data)
            self.tier.use(entry)
            self.touch(entry)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.entries:
            entry = self.pick(data)
            freed = self.tier.remove(entry)
            assert sorted(freed) == sorted(self.drop([entry]))
            assert self.tier.remove(entry) == ()

    @rule(data=st.data())
    def without(self, data: st.DataObject) -> None:
        if self.entries:
            handle = data.draw(st.sampled_from(self.pick(data).handles))
            freed = self.tier.without(handle)
            assert sorted(freed) == sorted(self.drop([e for e in self.entries if handle in e.handles]))

    @rule(data=st.data(), nbytes=st.integers(0, 20))
    def weigh(self, data: st.DataObject, nbytes: int) -> None:
        if self.entries:
            handle = data.draw(st.sampled_from(self.pick(data).handles))
            self.tier.weigh(handle, nbytes)
            self.sizes[handle] = nbytes

    @rule(
        nbytes=st.sampled_from([0, 5, 20, HUGE]),
        entries=st.sampled_from([0, 1, 3, HUGE]),
        pieces=st.sampled_from([0, 2, 6, HUGE]),
    )
    def shrink(self, nbytes: int, entries: int, pieces: int) -> None:
        gone: set[KvHandle] = set()
        while self.entries and self.is_over(nbytes, entries, pieces):
            freed = self.drop(self.entries[:1])
            assert freed, "letting go of an entry freed nothing"
            gone |= freed
            self.evictions += 1
        assert sorted(self.tier.shrink(nbytes=nbytes, entries=entries, pieces=pieces)) == sorted(gone)

    @rule(root=st.sampled_from(ROOTS), ids=st.lists(st.integers(0, 1), max_size=10).map(tuple))
    def find(self, root: KvHandle, ids: Ids) -> None:
        served = {e: self.serves(e, ids) for e in self.entries if e.root == root}
        most = max(served.values(), default=0)
        found = self.tier.find(root, ids)
        assert (found.tokens if found else 0) == most
        assert found is None or served[found.entry] == most > 0

    def serves(self, entry: Entry, ids: Ids) -> int:
        """How many leading ids of `ids` the entry can be used for."""
        if self.trimmable:
            return max(n for n in range(len(ids) + 1) if entry.token_ids[:n] == ids[:n] and n <= len(entry.token_ids))
        return len(entry.token_ids) if ids[: len(entry.token_ids)] == entry.token_ids else 0

    @invariant()
    def the_figures_are_those_of_a_recount(self) -> None:
        kept = self.kept()
        assert (len(self.tier), self.tier.pieces, self.tier.evictions) == (len(self.entries), len(kept), self.evictions)
        assert self.tier.nbytes == sum(self.sizes[handle] for handle in kept)
        assert {handle for handle in self.sizes if self.tier.holds(handle)} == kept

    def teardown(self) -> None:
        """Let go of one after the other: the order is right to the last, and nothing stays behind."""
        while self.entries:
            self.shrink(HUGE, len(self.entries) - 1, HUGE)
            self.the_figures_are_those_of_a_recount()
        assert (len(self.tier), self.tier.pieces, self.tier.nbytes, self.tier._trees) == (0, 0, 0, {})


class _UncuttableBooks(_Books):
    trimmable = False


def _begins(whole: Entry, beginning: Entry) -> bool:
    ids = beginning.token_ids
    return whole.root == beginning.root and whole.token_ids[: len(ids)] == ids


def _length(entry: Entry) -> int:
    return len(entry.token_ids)


def _pieces(root: KvHandle, chunks: list[Ids]) -> tuple[KvPiece, ...]:
    stops = [sum(map(len, chunks[: i + 1])) for i in range(len(chunks))]
    return cut(root, tuple(id_ for chunk in chunks for id_ in chunk), stops)


@pytest.mark.parametrize("books", [_Books, _UncuttableBooks])
def test_whatever_is_done_the_books_agree_with_a_recount(books: type[_Books]) -> None:
    run_state_machine_as_test(books, settings=settings(max_examples=60, stateful_step_count=25, deadline=None))


ROOT = root_of("")
PIECE_BYTES = 10


def _add(tier: Tier, *chunks: Ids) -> tuple[Entry, tuple[KvHandle, ...]]:
    pieces = _pieces(ROOT, list(chunks))
    return tier.add(ROOT, pieces, {piece.handle: PIECE_BYTES for piece in pieces})


def test_sequences_on_one_prefix_weigh_it_once_and_the_last_one_frees_it() -> None:
    tier = Tier(trimmable=True)
    one, _ = _add(tier, (1, 2), (3,))
    other, _ = _add(tier, (1, 2), (4,))
    assert (tier.nbytes, tier.pieces) == (3 * PIECE_BYTES, 3)
    assert tier.remove(one) == one.handles[1:]
    assert tier.remove(other) == other.handles
    assert (tier.nbytes, tier.pieces, len(tier)) == (0, 0, 0)


def test_a_continued_conversation_takes_the_place_of_its_beginning() -> None:
    tier = Tier(trimmable=True)
    block, rest, longer_rest = tuple(range(64)), tuple(range(64, 70)), tuple(range(64, 100))
    before, _ = _add(tier, block, rest)
    after, freed = _add(tier, block, longer_rest)
    assert freed == before.handles[1:]
    assert (len(tier), tier.pieces) == (1, 2)
    assert all(map(tier.holds, after.handles))


def test_what_is_kept_already_is_used_instead_and_the_new_pieces_are_of_no_use() -> None:
    tier = Tier(trimmable=True)
    kept, _ = _add(tier, (1, 2, 3, 4))
    other, _ = _add(tier, (5,))
    entry, freed = _add(tier, (1, 2, 3))
    assert (entry, freed) == (kept, tuple(p.handle for p in _pieces(ROOT, [(1, 2, 3)])))
    assert tier.shrink(nbytes=HUGE, entries=1, pieces=HUGE) == other.handles


def test_a_look_up_alone_keeps_nothing_from_being_let_go_of() -> None:
    tier = Tier(trimmable=True)
    first, _ = _add(tier, (1,))
    _add(tier, (2,))
    assert tier.find(ROOT, (1,))
    assert tier.shrink(nbytes=HUGE, entries=1, pieces=HUGE) == first.handles
    assert tier.evictions == 1


def test_nothing_is_found_under_another_salt() -> None:
    tier = Tier(trimmable=True)
    _add(tier, (1, 2, 3))
    assert tier.find(root_of("other"), (1, 2, 3)) is None


def test_what_cannot_be_cut_serves_its_whole_length_or_nothing() -> None:
    tier = Tier(trimmable=False)
    _add(tier, (1, 2, 3))
    assert tier.find(ROOT, (1, 2)) is None
    assert tier.find(ROOT, (1, 2, 4)) is None
    found = tier.find(ROOT, (1, 2, 3, 4))
    assert found is not None
    assert found.tokens == 3


def test_a_system_prompt_outlives_the_conversations_on_it() -> None:
    tier = Tier(trimmable=False)
    system, _ = _add(tier, (1, 2))
    _add(tier, (1, 2), (3,))
    newest, _ = _add(tier, (1, 2), (4,))
    tier.shrink(nbytes=2 * PIECE_BYTES, entries=HUGE, pieces=HUGE)
    assert tier.holds(newest.handles[-1])
    tier.shrink(nbytes=PIECE_BYTES, entries=HUGE, pieces=HUGE)
    found = tier.find(ROOT, (1, 2, 9))
    assert found is not None
    assert found.entry is system


def test_a_conversation_is_let_go_of_from_its_end() -> None:
    tier = Tier(trimmable=False)
    turns = [(1,), (2,), (3,), (4,)]
    entries = [_add(tier, *turns[: n + 1])[0] for n in (1, 0, 3, 2)]
    tier.use(entries[2])
    for handle in reversed(entries[2].handles):
        assert tier.shrink(nbytes=HUGE, entries=len(tier) - 1, pieces=HUGE) == (handle,)


def test_cleared_is_empty_and_no_eviction() -> None:
    tier = Tier(trimmable=True)
    one, _ = _add(tier, (1, 2), (3,))
    other, _ = _add(tier, (1, 2), (4,))
    assert sorted(tier.clear()) == sorted({*one.handles, *other.handles})
    assert (len(tier), tier.nbytes, tier.pieces, tier.evictions) == (0, 0, 0, 0)


def test_words_about_what_is_gone_change_nothing() -> None:
    tier = Tier(trimmable=True)
    gone, _ = _add(tier, (1,))
    tier.remove(gone)
    tier.use(gone)
    tier.weigh(gone.handles[0], 99)
    assert tier.without(gone.handles[0]) == ()
    assert (len(tier), tier.nbytes) == (0, 0)


def test_what_nobody_refers_to_costs_no_search() -> None:
    """Damaged folders and failed stores name hundreds of pieces, among thousands of entries."""
    tier = Tier(trimmable=True)
    entries = [_add(tier, *((n,) for n in range(first, first + 20)))[0] for first in range(0, 2000, 20)]
    tier._by_use = Untouchable(tier._by_use)
    assert tier.without(root_of("unknown")) == ()
    assert tier.without(entries[5].handles[3]) == entries[5].handles
    assert len(tier) == 99


class Untouchable(OrderedDict[Entry, None]):
    """It must not be gone through."""

    def __iter__(self) -> Iterator[Entry]:
        raise AssertionError("every entry was looked at")
