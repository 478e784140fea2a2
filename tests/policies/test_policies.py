"""Every decision beside a table of cases."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policies.admission import granted_tokens, refusal
from actors.policies.after_death import Fate, fate
from actors.policies.budget import KvBudget, kv_budget
from actors.policies.chunks import share_out
from actors.policies.overdue import Reading, overdue, read_on
from actors.policies.pace import LEAST_TOKENS, Pace, after_decode, after_prefill, turn_tokens
from actors.policies.prefix import common_prefix, hit_type, usable_tokens
from actors.policies.pressure import pressure_level, share_kept
from actors.policies.restarts import Intensity, back_off_s, exhausted, recent
from actors.policies.turns import Turn, next_turn
from runtime.types import CancelCause, HitType, MemoryAction, ModelFacts, PressureLevel, RejectReason, SequenceId
from tests.fakes import FACTS

NORMAL, WARN, LIMIT = PressureLevel
P, D = Turn.PREFILL, Turn.DECODE


@pytest.mark.parametrize(
    ("asking", "open_requests", "draining", "pressure", "action", "expected"),
    [
        (1, 0, False, NORMAL, MemoryAction.WARN, None),
        (1, 9, False, NORMAL, MemoryAction.WARN, None),
        (1, 10, False, NORMAL, MemoryAction.WARN, RejectReason.QUEUE_FULL),
        (2, 9, False, NORMAL, MemoryAction.WARN, RejectReason.QUEUE_FULL),
        (10, 0, False, NORMAL, MemoryAction.WARN, None),
        (1, 0, True, NORMAL, MemoryAction.WARN, RejectReason.DRAINING),
        (1, 0, False, LIMIT, MemoryAction.WARN, None),
        (1, 0, False, LIMIT, MemoryAction.REDUCE_CONTEXT, None),
        (1, 0, False, LIMIT, MemoryAction.REJECT_NEW, RejectReason.MEMORY_PRESSURE),
        (1, 0, False, WARN, MemoryAction.REJECT_NEW, None),
    ],
)
def test_the_door_opens_by_credits_drain_and_pressure(
    asking: int,
    open_requests: int,
    draining: bool,
    pressure: PressureLevel,
    action: MemoryAction,
    expected: RejectReason | None,
) -> None:
    got = refusal(asking, open_requests=open_requests, credits=10, draining=draining, pressure=pressure, action=action)
    assert got == expected


@pytest.mark.parametrize(
    ("pressure", "action", "granted"),
    [
        (LIMIT, MemoryAction.REDUCE_CONTEXT, 50),
        (WARN, MemoryAction.REDUCE_CONTEXT, 100),
        (LIMIT, MemoryAction.WARN, 100),
    ],
)
def test_output_is_halved_only_at_the_limit_and_only_if_so_asked(
    pressure: PressureLevel, action: MemoryAction, granted: int
) -> None:
    assert granted_tokens(100, pressure=pressure, action=action) == granted


def test_a_request_for_one_token_keeps_it_under_pressure() -> None:
    assert granted_tokens(1, pressure=LIMIT, action=MemoryAction.REDUCE_CONTEXT) == 1


@pytest.mark.parametrize(
    ("prefilling", "decoding", "under_way", "last", "expected"),
    [
        (False, False, {}, None, None),
        (True, False, {}, None, P),
        (False, True, {}, P, D),
        (False, True, {}, D, D),
        (False, True, {D: 1}, D, D),
        (False, True, {D: 2}, D, None),
        (True, False, {P: 1}, P, None),
        (True, False, {D: 1}, P, P),
        (True, True, {}, P, D),
        (True, True, {}, D, P),
        (True, True, {P: 1}, P, D),
        (True, True, {D: 1}, D, P),
        (True, True, {P: 1, D: 1}, D, None),
        (True, True, {D: 2}, D, None),
    ],
)
def test_turns_alternate_and_the_engine_has_its_next_command_in_time(
    prefilling: bool, decoding: bool, under_way: dict[Turn, int], last: Turn | None, expected: Turn | None
) -> None:
    assert next_turn(prefilling=prefilling, decoding=decoding, under_way=under_way, last=last) == expected


@pytest.mark.parametrize(
    ("remaining", "budget", "expected"),
    [
        ({1: 10}, 4, {1: 4}),
        ({1: 3, 2: 5}, 10, {1: 3, 2: 5}),
        ({1: 3000, 2: 5}, 64, {1: 59, 2: 5}),
        ({1: 3000, 2: 5, 3: 40, 4: 8}, 64, {1: 32, 2: 5, 3: 19, 4: 8}),
        ({1: 5, 2: 3000}, 64, {1: 5, 2: 59}),
        ({1: 3000}, 1, {1: 1}),
        ({}, 4, {}),
    ],
)
def test_a_prefill_turn_is_shared_by_the_oldest_and_the_shortest(
    remaining: dict[int, int], budget: int, expected: dict[int, int]
) -> None:
    assert share_out({SequenceId(k): v for k, v in remaining.items()}, budget) == expected


@given(st.dictionaries(st.integers(1, 50), st.integers(1, 500), min_size=1, max_size=20), st.integers(1, 600))
def test_a_prefill_turn_is_used_up_and_the_oldest_always_gets_on(remaining: dict[int, int], budget: int) -> None:
    shares = share_out({SequenceId(k): v for k, v in remaining.items()}, budget)
    assert sum(shares.values()) == min(budget, sum(remaining.values()))
    assert all(0 < share <= remaining[each] for each, share in shares.items())
    assert next(iter(remaining)) in shares


def paced(tokens_per_s: float, step_s: float, turns: int, *, prompts: int = 1, streams: int = 8) -> tuple[int, float]:
    """The last turn's tokens after so many prefill turns beside such streams, and its gap over the usual."""
    pace, tokens, gap = Pace(), 0, step_s
    for _ in range(20):
        pace = after_decode(pace, step_s, max_gap_ratio=2.0, most_tokens=512)
    for _ in range(turns):
        tokens = turn_tokens(pace, prompts=prompts, streams=streams, max_gap_ratio=2.0, most_tokens=512)
        seconds = 0.0005 + tokens / tokens_per_s
        gap = seconds + step_s
        pace = after_decode(after_prefill(pace, tokens, seconds), step_s, max_gap_ratio=2.0, most_tokens=512)
    return tokens, gap / step_s


@pytest.mark.parametrize("tokens_per_s", [2_000.0, 20_000.0, 50_000.0])
def test_the_budget_settles_where_streams_wait_as_long_as_they_may(tokens_per_s: float) -> None:
    budget, ratio = paced(tokens_per_s, step_s=0.01, turns=20)
    assert LEAST_TOKENS < budget < 512
    assert ratio == pytest.approx(2.0, rel=0.1)


def test_the_budget_stays_within_its_bounds() -> None:
    assert paced(1e9, step_s=0.1, turns=20)[0] == 512
    assert paced(10.0, step_s=0.001, turns=20)[0] == LEAST_TOKENS


def test_where_more_wait_for_their_first_token_than_run_a_wait_may_be_as_many_times_longer() -> None:
    assert paced(20_000.0, step_s=0.005, turns=20, prompts=8, streams=8)[1] == pytest.approx(2.0, rel=0.1)
    assert paced(20_000.0, step_s=0.005, turns=20, prompts=12, streams=4)[1] == pytest.approx(6.0, rel=0.1)


def test_a_turn_that_was_not_full_says_nothing_of_the_budget() -> None:
    pace = after_decode(Pace(budget_tokens=100), 0.01, max_gap_ratio=2.0, most_tokens=512)
    for seconds in (0.0001, 5.0):
        after = after_decode(after_prefill(pace, 99, seconds), 0.01, max_gap_ratio=2.0, most_tokens=512)
        assert after.budget_tokens == 100


def test_with_nobody_running_a_turn_is_as_large_as_it_may_be() -> None:
    assert turn_tokens(Pace(), prompts=1, streams=0, max_gap_ratio=2.0, most_tokens=512) == 512


def test_steps_beside_prompts_do_not_count_as_usual() -> None:
    pace = after_decode(Pace(), 0.01, max_gap_ratio=2.0, most_tokens=512)
    held_up = after_decode(after_prefill(pace, 64, 0.5), 0.01, max_gap_ratio=2.0, most_tokens=512)
    assert held_up.usual_s == 0.01
    assert held_up.held_up_s == 0.0


@pytest.mark.parametrize(
    ("since", "deadline", "expected"),
    [(90.0, 200.0, None), (90.0, 100.0, CancelCause.DEADLINE), (40.0, 200.0, CancelCause.STALLED)],
)
def test_a_request_outstays_its_deadline_or_its_reader(
    since: float, deadline: float, expected: CancelCause | None
) -> None:
    assert overdue(Reading(0, since), deadline=deadline, now=100.0, stall_s=60.0) == expected


@pytest.mark.parametrize(
    ("taken", "unread", "since"),
    [(5, 3, 10.0), (6, 3, 20.0), (5, 0, 20.0)],
    ids=["stands still", "took one", "has nothing to read"],
)
def test_a_reader_is_seen_to_make_progress(taken: int, unread: int, since: float) -> None:
    assert read_on(Reading(5, 10.0), taken=taken, unread=unread, now=20.0) == Reading(taken, since)


@pytest.mark.parametrize(
    ("used", "last", "expected"),
    [
        (0.50, NORMAL, NORMAL),
        (0.70, NORMAL, WARN),
        (0.69, NORMAL, NORMAL),
        (0.69, WARN, WARN),
        (0.67, WARN, NORMAL),
        (0.85, NORMAL, LIMIT),
        (0.84, LIMIT, LIMIT),
        (0.84, WARN, WARN),
        (0.82, LIMIT, WARN),
        (0.69, LIMIT, WARN),
        (0.50, LIMIT, NORMAL),
    ],
)
def test_pressure_rises_at_a_threshold_and_falls_below_it(
    used: float, last: PressureLevel, expected: PressureLevel
) -> None:
    assert pressure_level(used, warn=0.70, limit=0.85, last=last) == expected


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40))
def test_the_common_prefix_is_the_one_found_by_stepping(a: list[int], b: list[int]) -> None:
    stepping = 0
    while stepping < min(len(a), len(b)) and a[stepping] == b[stepping]:
        stepping += 1
    assert common_prefix(tuple(a), tuple(b)) == stepping


@pytest.mark.parametrize(
    ("history", "stored", "expected"),
    [
        ((1, 2, 3), (1, 2, 3), HitType.EXACT),
        ((1, 2, 3), (1, 2), HitType.PREFIX),
        ((1, 2), (1, 2, 3), HitType.SUPERSEQUENCE),
        ((1, 2, 3), (1, 2, 4), HitType.LCP),
        ((1, 2, 3), (2, 2, 3), HitType.MISS),
    ],
)
def test_a_hit_is_named_by_how_prompt_and_store_relate(
    history: tuple[int, ...], stored: tuple[int, ...], expected: HitType
) -> None:
    assert hit_type(history, stored, common_prefix(history, stored)) == expected


def test_the_last_id_is_never_taken_from_the_cache() -> None:
    assert usable_tokens((1, 2, 3), 3) == 2
    assert usable_tokens((1,), 1) == 0


def test_the_fourth_death_within_a_minute_exhausts_three_restarts() -> None:
    intensity = Intensity(restarts=3, within_s=60.0)
    deaths: tuple[float, ...] = ()
    for now in (0.0, 10.0, 20.0):
        deaths = recent(deaths, now=now, intensity=intensity)
        assert not exhausted(deaths, intensity)
    assert exhausted(recent(deaths, now=59.0, intensity=intensity), intensity)
    assert not exhausted(recent(deaths, now=60.0, intensity=intensity), intensity)


def test_restarts_back_off_from_the_second_recent_death_on() -> None:
    assert [back_off_s(tuple([0.0] * deaths)) for deaths in (1, 2, 3, 4, 9)] == [0.0, 0.25, 0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("ended", "blamed", "expected"),
    [(True, 2, Fate.CLOSE), (False, 0, Fate.RESUME), (False, 1, Fate.RESUME), (False, 2, Fate.FAIL)],
)
def test_what_becomes_of_a_request_after_a_death(ended: bool, blamed: int, expected: Fate) -> None:
    assert fate(ended=ended, blamed=blamed) == expected


def budget(facts: ModelFacts = FACTS, *, keep_mb: int | None = 0, total_mb: int | None = None) -> KvBudget:
    return kv_budget(facts, total_mb=total_mb, keep_mb=keep_mb, keep_fraction=0.2)


def test_kv_caches_get_what_is_free_but_for_some_room_to_work_in() -> None:
    facts = replace(FACTS, memory_bytes=10 << 20, free_bytes=7 << 20)
    assert budget(facts).total_bytes == 6 << 20
    assert budget(facts, total_mb=9).total_bytes == 9 << 20


def test_however_little_is_free_there_is_room_to_serve_somebody() -> None:
    facts = replace(FACTS, memory_bytes=10 << 20, free_bytes=0, kv_bytes_per_token=10)
    found = budget(facts)
    assert (found.total_bytes, found.context_tokens, found.more_than_free) == (512 << 10, FACTS.context_tokens, True)
    large = budget(replace(facts, kv_bytes_per_token=10_000))
    assert (large.total_bytes, large.context_tokens) == (512 * 10_000, 943)
    assert not budget(replace(facts, free_bytes=10 << 20)).more_than_free
    exact = budget(facts, total_mb=0)
    assert (exact.total_bytes, exact.more_than_free) == (0, False)


def test_kept_prefixes_get_a_share_of_the_memory_but_no_more_than_all_kv_caches() -> None:
    facts = replace(FACTS, memory_bytes=10 << 20, free_bytes=7 << 20)
    assert budget(facts, keep_mb=None).keep_bytes == 2 << 20
    assert budget(facts, keep_mb=1).keep_bytes == 1 << 20
    assert budget(facts, keep_mb=50).keep_bytes == 6 << 20
    assert budget(facts, keep_mb=None, total_mb=1).keep_bytes == 1 << 20


def test_a_memory_too_small_for_the_context_shortens_it_whatever_is_free_now() -> None:
    small = replace(FACTS, memory_bytes=20_000, free_bytes=20_000, weight_bytes=4000, kv_bytes_per_token=10)
    for free_bytes in (20_000, 5000, 0):
        assert budget(replace(small, free_bytes=free_bytes)).context_tokens == (1800 if free_bytes == 20_000 else 1400)
    assert budget(replace(small, kv_bytes_per_token=0)).context_tokens == FACTS.context_tokens


def test_a_chosen_budget_is_exact_and_shortens_the_context_to_what_it_holds() -> None:
    facts = replace(FACTS, memory_bytes=1 << 30, kv_bytes_per_token=1024)
    assert budget(facts, total_mb=1).context_tokens == 1024


@pytest.mark.parametrize(("chosen", "tokens"), [(None, 100), (50, 50), (200, 200), (5000, 900)])
def test_a_chosen_context_beats_the_declared_one_but_not_the_memory(chosen: int | None, tokens: int) -> None:
    facts = replace(FACTS, context_tokens=100, memory_bytes=10_000, free_bytes=10_000, kv_bytes_per_token=10)
    found = kv_budget(facts, total_mb=None, keep_mb=0, keep_fraction=0.2, context_tokens=chosen)
    assert found.context_tokens == tokens


def test_the_prefix_cache_gives_way_by_halves() -> None:
    assert [share_kept(level) for level in (NORMAL, WARN, LIMIT)] == [1.0, 0.5, 0.0]
