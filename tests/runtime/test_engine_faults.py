"""An exception inside a step costs the row that raises, and nobody else a token."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from runtime.engine import commands as c
from runtime.mlx.engine import MlxEngine
from runtime.types import Sampling, SequenceId, TokenOutput
from tests.tiny import make_tiny_llama

ROWS, TOKENS, POISON = 8, 12, 400
PROMPTS = {n: tuple(range(20 + n, 24 + 4 * n)) for n in range(ROWS)}
SAMPLINGS = {
    n: Sampling(max_tokens=TOKENS, temperature=0.8 * (n % 2), seed=n, repetition_penalty=1.0 + 0.1 * n)
    for n in range(ROWS)
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"))


class Faulty:
    """A model that raises when it is fed what it should not be."""

    def __init__(self, model: Callable[..., mx.array], raises: Callable[[list[list[int]]], bool]) -> None:
        self._model = model
        self._raises = raises

    def __call__(self, tokens: mx.array, cache: object) -> mx.array:
        if self._raises([[int(each) for each in row] for row in np.array(tokens)]):
            raise RuntimeError("planted")
        return self._model(tokens, cache=cache)

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)


class Stage:
    """An engine in this thread, and everything it said of each row."""

    def __init__(self, model: Path, chunk_tokens: int = 0) -> None:
        self.engine = MlxEngine(lambda _doing: None)
        self.engine.execute(c.LoadModel(str(model), chunk_tokens=chunk_tokens))
        self.output: dict[int, list[TokenOutput]] = {}
        self.failed: dict[int, str] = {}

    def plant(self, raises: Callable[[list[list[int]]], bool]) -> None:
        faulty = Faulty(self.engine._model.model, raises)
        object.__setattr__(self.engine._model, "model", faulty)  # Its batches have the same.

    def join(self, rows: dict[int, tuple[int, ...]]) -> None:
        for n, prompt in rows.items():
            self.engine.execute(c.Prefill((c.PrefillSlice(SequenceId(n), prompt[:-1]),)))
            self.engine.execute(c.Join((c.JoinRow(SequenceId(n), prompt, len(prompt), SAMPLINGS[n], keep_kv=True),)))

    def decode(self, times: int = 1) -> None:
        for _ in range(times):
            result = self.engine.execute(c.Decode())
            assert isinstance(result, c.Decoded)
            for row in result.rows:
                self.output.setdefault(row.sequence_id, []).extend(row.tokens)
            self.failed |= {each.sequence_id: each.error for each in result.failed}


@pytest.fixture(scope="module")
def alone(model: Path) -> dict[int, list[TokenOutput]]:
    """What each row says by itself."""
    stage = Stage(model)
    for n, prompt in PROMPTS.items():
        stage.join({n: prompt})
        stage.decode(TOKENS)
    return stage.output


def fed(token_id: int) -> Callable[[list[list[int]]], bool]:
    """Raises whenever a decode step is fed this token."""
    return lambda rows: any(row == [token_id] for row in rows)


@pytest.mark.parametrize("poisoned", [0, 3, 7])
@pytest.mark.parametrize(("after", "chunk_tokens"), [(0, 0), (4, 0), (4, 64)])
def test_of_eight_rows_the_poisoned_one_fails_and_seven_say_what_they_say_alone(
    model: Path, alone: dict[int, list[TokenOutput]], poisoned: int, after: int, chunk_tokens: int
) -> None:
    """With fixed chunks output is fed again step by step, and the poison comes at the end of it."""
    others = [token.token_id for n in range(ROWS) if n != poisoned for token in alone[n]]
    stage = Stage(model, chunk_tokens)
    stage.join(PROMPTS)
    stage.decode(after)
    step = next(i for i, token in enumerate(alone[poisoned]) if i >= after and token.token_id not in others)
    stage.plant(fed(alone[poisoned][step].token_id))
    stage.decode(TOKENS)
    assert set(stage.failed) == {poisoned}
    assert "planted" in stage.failed[poisoned]
    said = [token.token_id for token in stage.output.get(poisoned, [])]
    assert said == [token.token_id for token in alone[poisoned][: len(said)]]
    for n in range(ROWS):
        if n != poisoned:
            assert stage.output[n] == alone[n]


def test_a_fault_that_passes_costs_nobody_anything(model: Path, alone: dict[int, list[TokenOutput]]) -> None:
    stage = Stage(model)
    stage.join(PROMPTS)
    stage.decode(3)
    faults = iter([True])
    stage.plant(lambda _rows: next(faults, False))
    stage.decode(TOKENS)
    assert stage.output == alone
    assert not stage.failed


def test_a_row_that_raises_as_it_joins_fails_alone(model: Path, alone: dict[int, list[TokenOutput]]) -> None:
    stage = Stage(model)
    stage.join({n: prompt for n, prompt in PROMPTS.items() if n < 4})
    stage.decode(2)
    stage.plant(fed(PROMPTS[5][-1]))
    stage.join({5: PROMPTS[5], 6: PROMPTS[6]})
    stage.decode(TOKENS)
    assert set(stage.failed) == {5}
    assert {n: stage.output[n] for n in (0, 1, 2, 3, 6)} == {n: alone[n] for n in (0, 1, 2, 3, 6)}


def test_a_fault_while_rows_join_loses_no_token_of_those_that_run(
    model: Path, alone: dict[int, list[TokenOutput]]
) -> None:
    stage = Stage(model)
    stage.join({n: prompt for n, prompt in PROMPTS.items() if n < 4})
    stage.decode(2)
    stage.join({n: prompt for n, prompt in PROMPTS.items() if n >= 4})
    faults = iter([False, True])  # the step of those that run, then the first of those that join
    stage.plant(lambda _rows: next(faults, False))
    stage.decode(TOKENS)
    assert stage.output == alone
    assert not stage.failed


def test_a_prompt_that_raises_fails_alone(model: Path, alone: dict[int, list[TokenOutput]]) -> None:
    stage = Stage(model)
    stage.plant(lambda rows: any(POISON in row for row in rows))
    slices = (c.PrefillSlice(SequenceId(9), (1, POISON, 2)), c.PrefillSlice(SequenceId(0), PROMPTS[0][:-1]))
    result = stage.engine.execute(c.Prefill(slices))
    assert isinstance(result, c.Prefilled)
    assert [each.sequence_id for each in result.failed] == [9]
    stage.engine.execute(c.Join((c.JoinRow(SequenceId(0), PROMPTS[0], len(PROMPTS[0]), SAMPLINGS[0], False),)))
    stage.decode(TOKENS)
    assert stage.output[0] == alone[0]


def test_where_every_row_raises_it_is_the_engine_that_is_broken(model: Path) -> None:
    stage = Stage(model)
    stage.join(PROMPTS)
    stage.decode(1)
    stage.plant(lambda _rows: True)
    with pytest.raises(RuntimeError, match="planted"):
        stage.decode(1)
