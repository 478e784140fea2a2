"""What company may not change: the bits of a row's log-probabilities, with --batch-invariant."""

from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from runtime.engine import commands as c
from runtime.errors import ModelError
from runtime.mlx import steady
from runtime.mlx.engine import MlxEngine
from runtime.types import KvHandle, KvPiece, Sampling, SequenceId, TokenOutput
from tests.families import FAMILIES, SELF_ATTENDING, make_family
from tests.tiny import make_tiny_llama

CHUNK, TOKENS = 64, 10
LENGTHS = (2, 5, 63, 64, 65, 66, 100, 129, 40, 41, 7, 190)
PROMPTS = {n: tuple((7 * n + 13 * place) % 400 + 20 for place in range(length)) for n, length in enumerate(LENGTHS)}
SAMPLINGS = {
    n: Sampling(max_tokens=TOKENS, temperature=0.9 * (n % 2), seed=n, top_p=0.9, top_logprobs=2, repetition_penalty=1.1)
    for n in PROMPTS
}
Outputs = dict[int, list[TokenOutput]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"), hidden=48, heads=3, kv_heads=1, layers=2)


class Stage:
    """An engine in this thread, and all that its rows said."""

    def __init__(self, model: Path, dtype: str = "float32") -> None:
        self.engine = MlxEngine(lambda _doing: None)
        self.engine.execute(c.LoadModel(str(model), dtype=dtype, batch_invariant=True, chunk_tokens=CHUNK))
        self.output: Outputs = {}

    def prefill(self, n: int, start: int = 0) -> None:
        prompt = PROMPTS[n]
        for begin in range(start, len(prompt) - 1, CHUNK):
            ids = prompt[begin : min(begin + CHUNK, len(prompt) - 1)]
            self.engine.execute(c.Prefill((c.PrefillSlice(SequenceId(n), ids),)))

    def join(self, *rows: int, said: Mapping[int, tuple[int, ...]] | None = None) -> None:
        joined = []
        for n in rows:
            history = PROMPTS[n] + (said or {}).get(n, ())
            joined.append(c.JoinRow(SequenceId(n), history, len(PROMPTS[n]), SAMPLINGS[n], keep_kv=True))
        self.engine.execute(c.Join(tuple(joined)))

    def decode(self, steps: int = 1) -> None:
        result = self.engine.execute(c.Decode(steps))
        assert isinstance(result, c.Decoded)
        assert not result.failed
        for row in result.rows:
            self.output.setdefault(row.sequence_id, []).extend(row.tokens)

    def finish(self) -> Outputs:
        for _ in range(3 * TOKENS):
            self.decode()
        return self.output


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def alone(model: Path, dtype: str) -> Outputs:
    found: Outputs = {}
    for n in PROMPTS:
        stage = Stage(model, dtype)
        stage.prefill(n)
        stage.join(n)
        found |= stage.finish()
    assert all(len(tokens) == TOKENS for tokens in found.values())
    return found


def test_rows_say_the_same_bit_by_bit_alone_and_all_together(model: Path, dtype: str, alone: Outputs) -> None:
    stage = Stage(model, dtype)
    for n in PROMPTS:
        stage.prefill(n)
    stage.join(*PROMPTS)
    assert stage.finish() == alone


def test_rows_that_come_and_go_change_nothing_for_the_others(model: Path, dtype: str, alone: Outputs) -> None:
    stage = Stage(model, dtype)
    for n in PROMPTS:
        stage.prefill(n)
        stage.join(n)
        stage.decode(n % 3)
        if n % 5 == 4:
            stage.engine.execute(c.Forget((SequenceId(n - 2),)))
    said = stage.finish()
    assert all(said[n] == alone[n][: len(said[n])] for n in PROMPTS)
    assert [n for n in PROMPTS if len(said[n]) == TOKENS] == [n for n in PROMPTS if n not in (2, 7)]


def test_output_that_is_fed_again_is_gone_on_with_as_if_nothing_had_happened(
    model: Path, dtype: str, alone: Outputs
) -> None:
    stage = Stage(model, dtype)
    said = {n: tuple(token.token_id for token in alone[n][:4]) for n in (1, 4, 6)}
    for n in PROMPTS:
        stage.prefill(n)
    stage.join(*PROMPTS, said=said)
    output = stage.finish()
    assert all(output[n] == (alone[n][4:] if n in said else alone[n]) for n in PROMPTS)


def test_a_prefix_that_was_kept_up_to_a_chunks_end_is_as_good_as_new(model: Path, dtype: str, alone: Outputs) -> None:
    stage = Stage(model, dtype)
    whole = PROMPTS[11]
    stage.prefill(11)
    pieces = (
        KvPiece(KvHandle(b"one"), KvHandle(b"root"), 0, whole[:CHUNK]),
        KvPiece(KvHandle(b"two"), KvHandle(b"one"), CHUNK, whole[CHUNK : 2 * CHUNK]),
    )
    stage.engine.execute(c.StoreKv(SequenceId(11), pieces))
    stage.engine.execute(c.Forget((SequenceId(11),)))
    stage.engine.execute(c.LoadKv(SequenceId(11), tuple(piece.handle for piece in pieces), 2 * CHUNK))
    stage.prefill(11, start=2 * CHUNK)
    stage.join(11)
    assert stage.finish()[11] == alone[11]


def test_a_step_that_raised_and_was_taken_again_changes_nothing(
    model: Path, dtype: str, alone: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(model, dtype)
    for n in PROMPTS:
        stage.prefill(n)
    stage.join(*PROMPTS)
    stage.decode(3)
    faults = iter([True])
    forward = stage.engine._model.model.__class__.__call__

    def faulty(self: object, *args: object, **kwargs: object) -> mx.array:
        if next(faults, False):
            raise RuntimeError("planted")
        logits: mx.array = forward(self, *args, **kwargs)
        return logits

    monkeypatch.setattr(stage.engine._model.model.__class__, "__call__", faulty)
    assert stage.finish() == alone


def test_a_row_that_is_apart_shares_no_batch(model: Path) -> None:
    stage = Stage(model)
    for n in (0, 1, 2):
        stage.prefill(n)
    rows = [c.JoinRow(SequenceId(n), PROMPTS[n], len(PROMPTS[n]), SAMPLINGS[n], True, apart=n != 1) for n in (0, 1, 2)]
    stage.engine.execute(c.Join(tuple(rows)))
    stage.decode()
    stage.prefill(3)
    stage.join(3)
    stage.decode()
    assert sorted(len(batch) for batch in stage.engine._batches) == [1, 1, 2]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_model_whose_caches_depend_on_company_is_refused_by_name(family: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--batch-invariant is not possible with this model: .*Cache"):
        engine = MlxEngine(lambda _doing: None)
        engine.execute(c.LoadModel(str(make_family(tmp_path, family)), batch_invariant=True, chunk_tokens=CHUNK))


@pytest.mark.parametrize("family", sorted(SELF_ATTENDING))
def test_a_model_whose_code_attends_by_itself_is_refused(family: str, tmp_path: Path) -> None:
    """It would attend to the room behind its rows, or without its own mask: the same in any company, and wrong."""
    with pytest.raises(ModelError, match=r"--batch-invariant is not possible with this model: .*atten"):
        engine = MlxEngine(lambda _doing: None)
        engine.execute(c.LoadModel(str(make_family(tmp_path, family)), batch_invariant=True, chunk_tokens=CHUNK))


def test_quantised_caches_are_refused(model: Path) -> None:
    with pytest.raises(ModelError, match="kv-bits"):
        engine = MlxEngine(lambda _doing: None)
        engine.execute(c.LoadModel(str(model), kv_bits=8, batch_invariant=True, chunk_tokens=CHUNK))


def test_a_model_that_depends_on_its_company_after_all_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def company_shows(_plan: steady.Plan, product: steady.Product, x: mx.array) -> mx.array:
        return product(x) * (1 + x.shape[0] * 1e-6)

    monkeypatch.setattr(steady.Plan, "apply", company_shows)
    with pytest.raises(ModelError, match="other results in company"):
        MlxEngine(lambda _doing: None).execute(
            c.LoadModel(str(model), dtype="float32", batch_invariant=True, chunk_tokens=CHUNK)
        )


def test_the_type_to_compute_in_can_be_chosen(model: Path) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        loaded = MlxEngine(lambda _doing: None).execute(c.LoadModel(str(model), dtype=dtype))
        assert isinstance(loaded, c.Loaded)
        assert loaded.facts.dtype == dtype


# --- products ---


def _weights(rows: mx.array) -> mx.array:
    weight = mx.random.normal((48, 64), key=mx.random.key(1))
    return rows @ weight.T


def test_a_product_that_depends_on_its_rows_from_some_number_down_is_padded_to_it() -> None:
    def product(x: mx.array) -> mx.array:
        return _weights(x) * (1.0 if x.shape[0] >= 5 else 1.0000001)

    plan = steady.plan(product, 64, mx.float32)
    assert plan == steady.Plan(steady.MOST_ROWS, 5)
    x = mx.random.normal((40, 1, 64), key=mx.random.key(2))
    whole = plan.apply(product, x)
    for rows in (1, 2, 4, 5, 31, 33, 40):
        assert np.array_equal(np.array(plan.apply(product, x[:rows])), np.array(whole[:rows]))


def test_a_product_that_depends_on_a_rows_place_is_computed_in_blocks() -> None:
    def product(x: mx.array) -> mx.array:
        places = mx.array([1.0000002 if place >= 8 else 1.0 for place in range(x.shape[0])])
        return _weights(x) * places[:, None, None]

    plan = steady.plan(product, 64, mx.float32)
    assert plan == steady.Plan(8, 8)
    x = mx.random.normal((20, 1, 64), key=mx.random.key(2))
    assert np.array_equal(np.array(plan.apply(product, x[:3])), np.array(plan.apply(product, x)[:3]))
