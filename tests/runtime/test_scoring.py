"""Prompt scores against the same numbers computed another way: the whole prompt in one forward pass, and numpy."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from runtime.engine import commands as c
from runtime.mlx import draw, loader, scoring
from runtime.mlx.engine import MlxEngine
from runtime.types import SequenceId, TokenOutput
from tests.tiny import make_tiny_llama

PROMPT = tuple(3 + (i * 37) % 500 for i in range(90))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"))


def log_probabilities(model: Path) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Of every id behind every prefix of PROMPT: shape [len(PROMPT), vocabulary]."""
    forward = loader.load(model, trust_remote_code=False).model
    logits = np.array(forward(mx.array([PROMPT]))[0].astype(mx.float32)).astype(np.float64)
    best = logits.max(axis=-1, keepdims=True)
    result: np.ndarray[tuple[int, int], np.dtype[np.float64]] = (
        logits - best - np.log(np.exp(logits - best).sum(axis=-1, keepdims=True))
    )
    return result


def scores(model: Path, *, chunk: int, top: int) -> list[TokenOutput]:
    """All ids of PROMPT but the first, as the engine scores them in slices of `chunk`."""
    engine = MlxEngine(lambda _doing: None)
    engine.execute(c.LoadModel(str(model)))
    found: list[TokenOutput] = []
    for start in range(0, len(PROMPT) - 1, chunk):
        end = min(start + chunk, len(PROMPT) - 1)
        piece = c.PrefillSlice(SequenceId(1), PROMPT[start:end], PROMPT[start + 1 : end + 1], top)
        result = engine.execute(c.Prefill((piece,)))
        assert isinstance(result, c.Prefilled)
        found += result.scored[0].targets
    return found


@pytest.mark.parametrize("chunk", [1, 16, 33, 500])
def test_scores_equal_an_independent_computation(model: Path, chunk: int) -> None:
    expected = log_probabilities(model)
    found = scores(model, chunk=chunk, top=5)
    assert len(found) == len(PROMPT) - 1
    for place, each in enumerate(found):
        row = expected[place]
        assert each.token_id == PROMPT[place + 1]
        assert each.logprob == pytest.approx(row[each.token_id], abs=2e-5)
        assert [i for i, _ in each.top_logprobs] == list(np.argsort(-row)[:5])
        assert [value for _, value in each.top_logprobs] == pytest.approx(np.sort(row)[::-1][:5], abs=2e-5)


def test_a_slice_whose_logits_are_too_large_goes_in_by_several(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scores(model, chunk=500, top=1)
    seen: list[tuple[int, ...]] = []
    likeliest = draw.likeliest

    def watched(logits: mx.array, n: int) -> mx.array:
        seen.append(logits.shape)
        return likeliest(logits, n)

    monkeypatch.setattr(scoring, "likeliest", watched)
    monkeypatch.setattr(scoring, "LOGITS_BYTES", 20 * 512 * 4)
    parts = scores(model, chunk=500, top=1)
    assert seen == [(20, 512)] * 4 + [(9, 512)]
    for one, other in zip(parts, whole, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)


def test_no_more_than_the_likeliest_asked_for_are_told(model: Path) -> None:
    assert all(each.top_logprobs == () and each.logprob is not None for each in scores(model, chunk=50, top=0))
