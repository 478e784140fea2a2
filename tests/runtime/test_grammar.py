"""Rows that follow a grammar beside rows that are free: what they may say, and that nobody else notices."""

import re
from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tokenizers import Tokenizer

from runtime.engine import commands as c
from runtime.mlx import grammar
from runtime.mlx.engine import MlxEngine
from runtime.types import FinishReason, Sampling, SequenceId, TokenOutput
from tests.tiny import IM_END, VOCAB, make_tiny_llama

STOP_ID = 2
PROMPTS = {n: tuple(range(20 + n, 26 + 3 * n)) for n in range(8)}
TOKENS = 24

WORDS = 'start: "[" PAIR (", " PAIR){5,9} "]"\nPAIR: /[a-z]{1,4}=[0-9]{1,3}/'
WORD = re.compile(r"\[[a-z]{1,4}=[0-9]{1,3}(, [a-z]{1,4}=[0-9]{1,3}){5,9}\]")
BROKEN = "start: nothing"
ENDLESS = 'start: "ab" more\nmore: "c" more'
"""No word of it ever ends; llguidance finds out when it comes to `more`."""


def sampling(n: int, **fields: object) -> Sampling:
    """Every other row is greedy; the others are drawn, and penalised."""
    usual = {"max_tokens": TOKENS, "temperature": 0.9 * (n % 2), "seed": n, "frequency_penalty": 0.3 * (n % 2)}
    return Sampling(**(usual | fields))  # type: ignore[arg-type]


def constrained(n: int, text: str = WORDS, **fields: object) -> Sampling:
    return sampling(n, **{"grammar": text, "stop_ids": frozenset({STOP_ID}), "max_tokens": 200} | fields)


class Stage:
    """An engine in this thread, and everything it said of each row."""

    def __init__(self, model: Path) -> None:
        self.engine = MlxEngine(lambda _doing: None)
        self.engine.execute(c.LoadModel(str(model)))
        self.tokens: dict[int, list[TokenOutput]] = {}
        self.finish: dict[int, FinishReason] = {}
        self.failed: dict[int, str] = {}
        self._tokenizer_file = model / "tokenizer.json"

    def join(self, rows: Mapping[int, Sampling], *, delivered: Mapping[int, list[int]] | None = None) -> None:
        for n, settings in rows.items():
            prompt = PROMPTS[n % len(PROMPTS)]
            history = (*prompt, *(delivered or {}).get(n, ()))
            self.engine.execute(c.Prefill((c.PrefillSlice(SequenceId(n), history[:-1]),)))
            self.engine.execute(c.Join((c.JoinRow(SequenceId(n), history, len(prompt), settings, keep_kv=False),)))

    def decode(self, times: int = 300) -> "Stage":
        """So many steps, or fewer if all rows have ended."""
        for _ in range(times):
            result = self.engine.execute(c.Decode())
            assert isinstance(result, c.Decoded)
            for row in result.rows:
                self.tokens.setdefault(row.sequence_id, []).extend(row.tokens)
                if row.finish:
                    self.finish[row.sequence_id] = row.finish
            self.failed |= {each.sequence_id: each.error for each in result.failed}
            assert all(each.refused for each in result.failed)
            if not result.steps:
                break
        return self

    def ids(self, n: int) -> list[int]:
        return [token.token_id for token in self.tokens.get(n, [])]

    def text(self, n: int) -> str:
        tokenizer = Tokenizer.from_file(str(self._tokenizer_file))
        return str(tokenizer.decode(self.ids(n), skip_special_tokens=False))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"))


ROWS = {n: constrained(n) if n in (1, 2, 4, 7) else sampling(n) for n in range(8)}


@pytest.fixture(scope="module")
def alone(model: Path) -> dict[int, list[TokenOutput]]:
    """What each row says by itself."""
    stage = Stage(model)
    for n, settings in ROWS.items():
        stage.join({n: settings})
        stage.decode()
    return stage.tokens


def test_a_row_spells_a_word_of_its_grammar_and_stops_where_nothing_can_follow(model: Path) -> None:
    stage = Stage(model)
    stage.join({n: constrained(n) for n in range(6)})
    stage.decode()
    assert all(WORD.fullmatch(stage.text(n)) for n in range(6))
    assert set(stage.finish.values()) == {FinishReason.STOP}
    assert len({stage.text(n) for n in range(6)}) > 4


def test_in_company_every_row_says_what_it_says_alone(model: Path, alone: dict[int, list[TokenOutput]]) -> None:
    stage = Stage(model)
    stage.join(ROWS)
    stage.decode()
    assert stage.tokens == alone


def test_rows_join_and_leave_without_touching_each_other(model: Path, alone: dict[int, list[TokenOutput]]) -> None:
    stage = Stage(model)
    for n, settings in ROWS.items():
        stage.join({n: settings, 100 + n: constrained(n)})
        stage.decode(3)
        stage.engine.execute(c.Forget((SequenceId(100 + n),)))
    stage.decode()
    assert {n: stage.tokens[n] for n in ROWS} == alone
    assert not stage.finish.keys() - ROWS.keys()


def test_after_a_fault_every_row_goes_on_in_its_grammar(model: Path, alone: dict[int, list[TokenOutput]]) -> None:
    stage = Stage(model)
    stage.join(ROWS)
    stage.decode(5)
    (batch,) = stage.engine._batches
    batch._caches = []  # the next step raises; the batch is made anew from what was handed out
    stage.decode()
    assert stage.tokens == alone
    assert not stage.failed


def test_choices_that_join_together_have_their_grammar_read_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    plain = grammar.Grammars.matcher

    def matcher(self: grammar.Grammars, text: str, stop_ids: frozenset[int]) -> grammar.Matcher:
        read.append(text)
        return plain(self, text, stop_ids)

    monkeypatch.setattr(grammar.Grammars, "matcher", matcher)
    stage = Stage(model)
    other = "start: /[a-z]{3}/"
    stage.join({**{n: constrained(n) for n in range(4)}, 5: constrained(5, other), 6: sampling(6)})
    stage.decode()
    assert sorted(read) == sorted([WORDS, other])
    assert all(WORD.fullmatch(stage.text(n)) for n in range(4))
    assert re.fullmatch("[a-z]{3}", stage.text(5))


@pytest.mark.parametrize("after", [1, 7, 15])
def test_a_row_that_resumes_behind_its_output_says_the_same(
    model: Path, alone: dict[int, list[TokenOutput]], after: int
) -> None:
    stage = Stage(model)
    delivered = {n: [token.token_id for token in tokens[:after]] for n, tokens in alone.items()}
    stage.join(ROWS, delivered=delivered)
    stage.decode()
    assert {n: delivered[n] + stage.ids(n) for n in ROWS} == {
        n: [token.token_id for token in tokens] for n, tokens in alone.items()
    }


@pytest.mark.parametrize(
    ("text", "handed_out", "reason"),
    [(BROKEN, "", "nothing"), (ENDLESS, "ab", "Too many items"), ("start: <[512]>", "", "512")],
)
def test_a_grammar_that_cannot_be_followed_fails_its_row_alone(
    model: Path, alone: dict[int, list[TokenOutput]], text: str, handed_out: str, reason: str
) -> None:
    stage = Stage(model)
    stage.join({**ROWS, 50: constrained(50, text, temperature=0.0)})
    stage.decode()
    assert set(stage.failed) == {50}
    assert reason in stage.failed[50]
    assert "\n" not in stage.failed[50]
    assert handed_out.startswith(stage.text(50))
    assert {n: stage.tokens[n] for n in ROWS} == alone


def test_delivered_output_that_is_not_of_the_grammar_fails_the_row(model: Path) -> None:
    stage = Stage(model)
    stage.join({0: constrained(0), 1: constrained(1)}, delivered={1: [7, 8]})
    stage.decode()
    assert set(stage.failed) == {1}
    assert "doesn't satisfy the grammar" in stage.failed[1]
    assert WORD.fullmatch(stage.text(0))


def test_a_word_that_is_cut_off_ends_with_length(model: Path) -> None:
    stage = Stage(model)
    stage.join({0: constrained(0, max_tokens=5)})
    stage.decode()
    assert stage.finish[0] is FinishReason.LENGTH
    assert len(stage.ids(0)) == 5


def test_the_last_token_of_a_word_is_no_cut(model: Path, alone: dict[int, list[TokenOutput]]) -> None:
    stage = Stage(model)
    stage.join({2: constrained(2, max_tokens=len(alone[2]))})
    stage.decode()
    assert stage.finish[2] is FinishReason.STOP


def test_a_stop_id_is_allowed_only_where_the_output_is_a_word(model: Path) -> None:
    stage = Stage(model)
    bias = ((STOP_ID, 100.0), (7, 50.0))
    texts = {0: "start: /[a-z]{9,99}/", 1: 'start: ""'}
    stage.join({n: constrained(n, text, logit_bias=bias) for n, text in texts.items()})
    stage.decode()
    assert stage.ids(0)[-1] == STOP_ID
    assert re.fullmatch("[a-z]{9,99}" + re.escape(IM_END), stage.text(0))
    assert stage.ids(1) == [STOP_ID]


def test_any_stop_id_of_the_row_ends_it_whatever_the_model_calls_its_own(model: Path) -> None:
    stop_id = 319  # the last bit of a word of the mask
    stage = Stage(model)
    biased = constrained(0, "start: /[a-z]*/", stop_ids=frozenset({stop_id, 9999}), logit_bias=((stop_id, 100.0),))
    stage.join({0: biased})
    stage.decode()
    assert stage.ids(0) == [stop_id]


def test_log_probabilities_are_those_of_the_free_distribution(model: Path) -> None:
    stage = Stage(model)
    asked: dict[str, object] = {"temperature": 0.0, "top_logprobs": VOCAB, "max_tokens": 1}
    stage.join({0: sampling(0, **asked)})
    stage.decode()
    stage.join({8: sampling(8, grammar=WORDS, **asked)})  # of the same prompt
    stage.decode()
    free, bound = stage.tokens[0][0], stage.tokens[8][0]
    assert bound.top_logprobs == free.top_logprobs
    assert bound.token_id != free.token_id
    assert bound.logprob == dict(free.top_logprobs)[bound.token_id]


def test_penalties_and_bias_choose_among_what_is_allowed(model: Path) -> None:
    stage = Stage(model)
    wanted = Tokenizer.from_file(str(model / "tokenizer.json")).encode("b").ids[0]
    stage.join({0: constrained(0, "start: /[abc]{3}/", logit_bias=((wanted, 60.0), (7, 99.0)))})
    stage.decode()
    assert stage.text(0) == "bbb"


def test_without_a_tokeniser_grammars_are_refused_and_all_else_works(tmp_path: Path, model: Path) -> None:
    bare = make_tiny_llama(tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    whole, stage = Stage(model), Stage(bare)
    whole.join({0: ROWS[0]})
    stage.join({0: ROWS[0], 1: ROWS[1]})
    stage.decode()
    assert stage.ids(0) == whole.decode().ids(0)
    assert set(stage.failed) == {1}
    assert "tokeniser" in stage.failed[1]


def test_ids_of_the_tokeniser_that_the_model_lacks_are_never_chosen(tmp_path: Path, model: Path) -> None:
    """Gemma 3 is such a model."""
    larger = make_tiny_llama(tmp_path / "larger")
    tokenizer = Tokenizer.from_file(str(larger / "tokenizer.json"))
    tokenizer.add_tokens([f"abc{n}" for n in range(40)])
    tokenizer.save(str(larger / "tokenizer.json"))
    usual, stage = Stage(model), Stage(larger)
    for each in (usual, stage):
        each.join({n: constrained(n) for n in range(3)})
        each.decode()
    assert all(WORD.fullmatch(stage.text(n)) for n in range(3))
    assert stage.tokens == usual.tokens


def test_a_mask_touches_its_own_rows_and_no_others() -> None:
    logits = mx.random.normal((4, 70), key=mx.random.key(1))
    allowed = np.random.default_rng(0).random((2, 70)) < 0.5
    padded = np.zeros((2, 96), dtype=bool)
    padded[:, :70] = allowed
    bits = np.packbits(padded, axis=1, bitorder="little").view(np.int32)
    expected = np.array(logits)
    for row, which in zip((3, 1), allowed, strict=True):
        expected[row][~which] = -np.inf
    assert np.array_equal(np.array(grammar.Mask((3, 1), mx.array(bits)).apply(logits)), expected)
    every = grammar.Mask((0, 1), mx.array(bits)).apply(logits[:2])
    assert np.array_equal(np.isfinite(np.array(every)), allowed)
