"""Rows join beside those that run, each in the batch of rows of its length."""

from pathlib import Path

import pytest

from runtime.engine import commands as c
from runtime.mlx import device
from runtime.mlx.engine import MlxEngine
from runtime.types import Sampling, SequenceId
from tests.tiny import make_tiny_llama


def join(engine: MlxEngine, number: int, prompt: tuple[int, ...]) -> None:
    engine.execute(c.Prefill((c.PrefillSlice(SequenceId(number), prompt[:-1]),)))
    row = c.JoinRow(SequenceId(number), prompt, len(prompt), Sampling(max_tokens=5), keep_kv=False)
    engine.execute(c.Join((row,)))


def stepped(engine: MlxEngine) -> list[int]:
    result = engine.execute(c.Decode())
    assert isinstance(result, c.Decoded)
    return sorted(row.sequence_id for row in result.rows)


@pytest.mark.parametrize("lengths", [(3, 4), (3, 40)], ids=["one batch", "two"])
def test_newcomers_wait_for_their_first_token_only_where_rows_ran_before(
    lengths: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "SHORT_TOKENS", 8)
    engine = MlxEngine(lambda _doing: None)
    engine.execute(c.LoadModel(str(make_tiny_llama(tmp_path))))
    for number, length in enumerate(lengths):
        join(engine, number, tuple(range(20, 20 + length)))
    assert stepped(engine) == [0, 1]
    join(engine, 2, (20, 21, 22))
    assert stepped(engine) == [0, 1]
    assert stepped(engine) == [0, 1, 2]
