"""Every row is sampled by its own settings: against closed formulas and mlx_lm's own filters."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

from runtime.mlx.draw import Draws, log_softmax, uniform
from runtime.mlx.edits import Edits, RowHistory
from runtime.mlx.sampler import Sampler
from runtime.types import Sampling

VOCAB = 50
GRID = 4000
"""Uniform numbers, evenly spread: a token then comes up as often as its probability says, within one."""


def logits(rows: int, seed: int = 0) -> mx.array:
    return mx.random.normal((rows, VOCAB), key=mx.random.key(seed)) * 2


def ints(array: mx.array) -> list[int]:
    return [int(value) for value in np.array(array)]


def settings(**fields: object) -> Sampling:
    return Sampling(**{"max_tokens": 10, **fields})  # type: ignore[arg-type]


def frequencies(sampling: Sampling, row: mx.array) -> np.ndarray:
    """How often each token is drawn over the whole grid of uniform numbers."""
    numbers = (mx.arange(GRID) + 0.5) / GRID
    drawn = Draws([sampling] * GRID).draw(mx.broadcast_to(row, (GRID, VOCAB)), numbers)
    return np.bincount(np.array(drawn), minlength=VOCAB) / GRID


def reference(sampling: Sampling, row: mx.array) -> np.ndarray:
    """The distribution that mlx_lm samples from with these settings."""
    logprobs = log_softmax(row)[None]
    if sampling.top_p < 1:
        logprobs = apply_top_p(logprobs, sampling.top_p)
    if sampling.min_p:
        logprobs = apply_min_p(logprobs, sampling.min_p)
    if sampling.top_k:
        logprobs = apply_top_k(logprobs, sampling.top_k)
    return np.array(mx.softmax(logprobs / sampling.temperature, axis=-1)[0])


@pytest.mark.parametrize(
    "sampling",
    [
        settings(),
        settings(temperature=0.5),
        settings(temperature=2.0),
        settings(top_p=0.7),
        settings(top_p=0.01),
        settings(top_p=0.9, temperature=1.5),
        settings(top_k=5),
        settings(top_k=49, temperature=0.8),
        settings(min_p=0.2),
        settings(top_p=0.95, top_k=10, min_p=0.02, temperature=1.2),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_tokens_come_up_as_often_as_mlx_lms_distribution_says(sampling: Sampling, seed: int) -> None:
    row = logits(1, seed)[0]
    assert np.abs(frequencies(sampling, row) - reference(sampling, row)).max() <= 1.5 / GRID


def test_a_filter_never_leaves_nothing() -> None:
    row = logits(1)[0]
    best = int(mx.argmax(row))
    for sampling in (settings(top_p=0.0), settings(min_p=1.0)):
        assert frequencies(sampling, row)[best] == 1.0


def test_rows_of_unlike_settings_are_drawn_as_if_alone() -> None:
    samplings = [settings(), settings(top_k=3), settings(top_p=0.5, temperature=0.7), settings(min_p=0.3)]
    rows, numbers = logits(4), mx.array([0.1, 0.6, 0.3, 0.9])
    together = ints(Draws(samplings).draw(rows, numbers))
    alone = [ints(Draws([each]).draw(rows[i : i + 1], numbers[i : i + 1]))[0] for i, each in enumerate(samplings)]
    assert together == alone


def test_the_uniform_number_is_a_function_of_seed_and_position() -> None:
    grid = [uniform(seed, position) for seed in range(50) for position in range(50)]
    assert len(set(grid)) > 2490
    assert all(0 <= number < 1 for number in grid)
    assert abs(sum(grid) / len(grid) - 0.5) < 0.02
    assert uniform(7, 3) == uniform(7, 3)
    assert uniform(-1, 0) == uniform(2**64 - 1, 0)


def test_the_largest_uniform_number_still_reaches_a_likely_token() -> None:
    row = logits(1)[0]
    drawn = Draws([settings()]).draw(row[None], mx.array([1 - 2.0**-23]))
    assert reference(settings(), row)[ints(drawn)[0]] > 0


def test_penalties_and_bias_follow_their_formulas() -> None:
    row = logits(1)
    prompt, output = [1, 2, 3], [3, 4, 4]
    sampling = settings(
        repetition_penalty=1.3, presence_penalty=0.7, frequency_penalty=0.2, logit_bias=((5, 2.5), (6, -100.0))
    )
    expected = np.array(row[0])
    for token in (1, 2, 3, 4):
        expected[token] = expected[token] / 1.3 if expected[token] > 0 else expected[token] * 1.3
    expected[3] -= 0.7 + 0.2
    expected[4] -= 0.7 + 0.2 * 2
    expected[5] += 2.5
    expected[6] -= 100.0
    edits = Edits([RowHistory(sampling, prompt, output)], VOCAB)
    assert np.allclose(np.array(edits.apply(row)[0]), expected, atol=1e-5)


def test_tokens_observed_one_by_one_count_like_a_history() -> None:
    sampling = settings(repetition_penalty=1.3, presence_penalty=0.7, frequency_penalty=0.2)
    row = logits(2)
    observed = Edits([RowHistory(sampling, [1, 2], []), RowHistory(sampling, [7], [8])], VOCAB)
    for tokens in ([3, 9], [3, 1]):
        observed.observe(mx.array(tokens))
    known = Edits([RowHistory(sampling, [1, 2], [3, 3]), RowHistory(sampling, [7], [8, 9, 1])], VOCAB)
    assert np.allclose(np.array(observed.apply(row)), np.array(known.apply(row)))


def histories(*samplings: Sampling) -> list[RowHistory]:
    return [RowHistory(each, [1, 2], []) for each in samplings]


def chosen(rows: mx.array, positions: list[int], *samplings: Sampling) -> list[int]:
    return ints(Sampler(histories(*samplings), VOCAB).sample(rows, positions).tokens)


def test_greedy_rows_take_the_likeliest_token_beside_rows_that_draw() -> None:
    rows = logits(3)
    samplings = (settings(temperature=0.0), settings(seed=4), settings(top_k=1))
    tokens = chosen(rows, [0, 0, 0], *samplings)
    best = ints(mx.argmax(rows, axis=-1))
    assert (tokens[0], tokens[2]) == (best[0], best[2])


def test_a_draw_depends_on_seed_and_position_not_on_the_place_in_the_batch() -> None:
    row = logits(1)
    one = settings(seed=5, temperature=1.5)
    (alone,) = chosen(row, [3], one)
    company = (settings(seed=1), settings(temperature=0.0), one)
    assert chosen(mx.concatenate([row] * 3), [9, 0, 3], *company)[2] == alone
    drawn = {chosen(row, [n], one)[0] for n in range(40)}
    assert len(drawn) > 3


def test_logprobs_are_given_to_the_rows_that_ask_and_follow_them() -> None:
    rows = logits(3)
    samplings = [
        settings(temperature=0.0, top_logprobs=2),
        settings(temperature=0.0),
        settings(temperature=0.0, top_logprobs=0),
    ]
    choice = Sampler(histories(*samplings), VOCAB).sample(rows, [0, 0, 0])
    expected = np.array(log_softmax(rows))
    first, second, third = choice.read(samplings)
    ranked = np.argsort(-expected[0])[:2]
    assert [token for token, _ in first.top_logprobs] == ranked.tolist()
    assert np.allclose([value for _, value in first.top_logprobs], expected[0][ranked], atol=1e-5)
    assert first.logprob == pytest.approx(expected[0].max(), abs=1e-5)
    assert second.logprob is None
    assert third.top_logprobs == ()
    moved = choice.only([2, 0]).beside(choice.only([1, 2]))
    assert moved.read([samplings[i] for i in (2, 0, 1, 2)]) == [third, first, second, third]
