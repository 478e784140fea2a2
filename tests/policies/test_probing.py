"""What a round of probes is made of, and how far two runs agree."""

from collections import Counter

import pytest

from actors.policies.agreement import Agreement, compare, together
from actors.policies.probing import (
    MOST_AT_ONCE,
    MOST_CANDIDATES,
    MOST_PROMPTS,
    Run,
    is_reproducible,
    passes,
    patience_s,
)
from runtime.types import DivergenceCause, Sampling, TokenOutput

COMPANY, CACHE, TRAFFIC = DivergenceCause.COMPANY, DivergenceCause.CACHE, DivergenceCause.TRAFFIC


def run(*ids: int, logprobs: tuple[float | None, ...] | None = None) -> tuple[TokenOutput, ...]:
    return tuple(map(TokenOutput, ids, logprobs or (None,) * len(ids)))


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (run(1, 2, 3), run(1, 2, 3), Agreement(3, 3, None, None)),
        (run(1, 2, 3), run(1, 9, 3), Agreement(3, 2, 1, None)),
        (run(1, 2, 3), run(9, 9, 9), Agreement(3, 0, 0, None)),
        (run(1, 2, 3), run(1, 2), Agreement(3, 2, 2, None)),
        (run(1), run(9, 2), Agreement(2, 0, 0, None)),
        (run(), run(), Agreement(0, 0, None, None)),
        (run(1, 2, logprobs=(-1.0, -2.0)), run(1, 2, logprobs=(-1.5, -2.25)), Agreement(2, 2, None, 0.5)),
        # What is said behind a difference has another history, so its likelihood tells nothing.
        (run(1, 2, 3, logprobs=(-1, -1, -1)), run(1, 9, 3, logprobs=(-1.25, -9, -9)), Agreement(3, 2, 1, 0.25)),
        (run(1, logprobs=(-1.0,)), run(9, logprobs=(-1.0,)), Agreement(1, 0, 0, None)),
        (run(1, logprobs=(-1.0,)), run(1), Agreement(1, 1, None, None)),
    ],
)
def test_two_runs_are_compared_place_by_place(
    one: tuple[TokenOutput, ...], other: tuple[TokenOutput, ...], told: Agreement
) -> None:
    assert compare(one, other) == told
    assert compare(other, one) == told


def test_comparisons_are_added_up() -> None:
    assert together([Agreement(4, 4, None, None)]) == Agreement(4, 4, None, None)
    three = [Agreement(4, 4, None, 0.1), Agreement(4, 2, 2, 0.3), Agreement(2, 1, 1, None)]
    assert together(three) == Agreement(10, 7, 1, 0.3)


@pytest.mark.parametrize(("prompts", "copies"), [(1, 8), (2, 4), (3, 3), (4, 2), (8, 2), (MOST_PROMPTS, 2)])
def test_in_company_every_prompt_has_at_least_two_rows_and_all_together_eight(prompts: int, copies: int) -> None:
    alone, cached, company = passes(prompts, 0, in_company=True)
    assert list(alone) == [Run(None, number) for number in range(prompts)]
    assert list(cached) == [Run(CACHE, number) for number in range(prompts)]
    assert Counter(company) == {Run(COMPANY, number): copies for number in range(prompts)}


def test_candidates_run_with_those_alone_and_without_company_there_is_no_such_pass() -> None:
    alone, cached = passes(2, 3, in_company=False)
    assert [each.cause for each in alone] == [None, None, TRAFFIC, TRAFFIC, TRAFFIC]
    assert [each.subject for each in alone] == [0, 1, 0, 1, 2]
    assert {each.cause for each in cached} == {CACHE}
    assert passes(0, 0, in_company=True) == ()


def test_no_pass_is_larger_than_the_mailboxes_allow_for() -> None:
    largest = max(len(each) for n in range(MOST_PROMPTS + 1) for each in passes(n, MOST_CANDIDATES, in_company=True))
    assert largest == MOST_AT_ONCE


def test_a_round_has_a_minute_or_the_interval() -> None:
    assert [patience_s(interval) for interval in (0.1, 60.0, 300.0)] == [60.0, 60.0, 300.0]


@pytest.mark.parametrize(
    ("sampling", "is_it"),
    [
        (Sampling(5, temperature=0.0), True),
        (Sampling(5, temperature=1.0, top_k=1), True),
        (Sampling(5, temperature=0.0, repetition_penalty=1.2, stop_ids=frozenset({2})), True),
        (Sampling(5, temperature=0.01), False),
        (Sampling(5, temperature=1.0, top_k=2, seed=7), False),
        (Sampling(5, temperature=0.0, grammar="start: A"), False),
    ],
)
def test_greedy_requests_without_a_grammar_can_be_computed_again(sampling: Sampling, is_it: bool) -> None:
    assert is_reproducible(sampling) is is_it
