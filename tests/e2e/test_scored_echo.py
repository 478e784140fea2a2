"""Prompt scores over HTTP, read as lm-evaluation-harness' `local-completions` reads them.

What it sends and how it takes the reply apart: lm_eval/models/openai_completions.py (LocalCompletionsAPI) and
api_models.py (TemplateAPI) in github.com/EleutherAI/lm-evaluation-harness.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mlx.core as mx
import numpy as np
import pytest

from runtime.mlx import loader
from tests.e2e.process import ServerProcess

Choice = dict[str, Any]

EOS = 2


@dataclass(frozen=True)
class Question:
    """How likely is this continuation of this context?"""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        return self.context + self.continuation


@dataclass(frozen=True)
class Answer:
    logprob: float
    greedy: bool
    """Whether each token of the continuation is the likeliest in its place."""


def complete(server: ServerProcess, **fields: object) -> list[Choice]:
    reply = httpx.post(f"{server.url}/v1/completions", json={"model": "default", **fields}, timeout=120)
    assert reply.status_code == 200, reply.text
    choices: list[Choice] = reply.json()["choices"]
    return choices


def ask(server: ServerProcess, questions: Sequence[Question], **fields: object) -> list[Answer]:
    """One call for all of them: one token more than the prompt, which is left out of the sums."""
    asked = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True, **fields}
    choices = complete(server, prompt=[question.ids for question in questions], **asked)
    choices.sort(key=lambda choice: int(choice["index"]))
    return [_read(choice["logprobs"], len(q.context)) for choice, q in zip(choices, questions, strict=True)]


def _read(logprobs: dict[str, Any], context: int) -> Answer:
    own = logprobs["token_logprobs"][context:-1]
    best = [max(top.values()) for top in logprobs["top_logprobs"][context:-1]]
    return Answer(sum(own), own == best)


class Reference:
    """The same answers from the model itself, a whole text in one forward pass."""

    def __init__(self, path: Path) -> None:
        self._model = loader.load(path, trust_remote_code=False).model

    def logprobs(self, ids: Sequence[int]) -> Any:
        """Of every id behind every prefix, float64, shape [ids, vocabulary]."""
        logits = np.array(self._model(mx.array([list(ids)]))[0].astype(mx.float32)).astype(np.float64)
        return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)

    def answer(self, question: Question) -> Answer:
        rows = self.logprobs(question.ids)[len(question.context) - 1 : -1]
        own = [row[token_id] for row, token_id in zip(rows, question.continuation, strict=True)]
        return Answer(sum(own), list(rows.argmax(axis=-1)) == list(question.continuation))

    def continued(self, context: Sequence[int], tokens: int) -> Question:
        """The continuation that the model itself would choose."""
        ids = list(context)
        for _ in range(tokens):
            ids.append(int(self.logprobs(ids)[-1].argmax()))
        return Question(tuple(context), tuple(ids[len(context) :]))


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> Reference:
    return Reference(tiny_model)


def prompt(start: int, tokens: int) -> tuple[int, ...]:
    return tuple(3 + (start + i * 37) % 500 for i in range(tokens))


def check(answers: Sequence[Answer], expected: Sequence[Answer], *, within: float) -> None:
    for got, wanted in zip(answers, expected, strict=True):
        assert got.logprob == pytest.approx(wanted.logprob, abs=within)
        assert got.greedy == wanted.greedy


def test_likelihoods_and_greediness_are_those_of_the_model(tiny_server: ServerProcess, reference: Reference) -> None:
    questions = [Question(prompt(i, 1 + 60 * i), prompt(100 + i, 1 + i)) for i in range(5)]
    questions += [reference.continued(prompt(i, 5 + i), 4) for i in range(3)]
    expected = [reference.answer(question) for question in questions]
    assert [each.greedy for each in expected] == [False] * 5 + [True] * 3
    check(ask(tiny_server, questions), expected, within=1e-3)


def test_a_generated_end_of_sequence_does_not_cost_the_last_token_its_score(
    tiny_server: ServerProcess, reference: Reference
) -> None:
    question = Question(prompt(1, 20), prompt(7, 2))
    check(ask(tiny_server, [question], logit_bias={EOS: 100}), [reference.answer(question)], within=1e-3)


def test_streams_beside_scored_prompts_keep_their_text(tiny_server: ServerProcess, reference: Reference) -> None:
    def write(start: int) -> str:
        text: str = complete(tiny_server, prompt=prompt(start, 9), max_tokens=60, temperature=0)[0]["text"]
        return text

    alone = [write(start) for start in range(3)]
    question = Question(prompt(50, 700), prompt(9, 3))
    with ThreadPoolExecutor() as pool:
        writing = [pool.submit(write, start) for start in range(3)]
        asking = [pool.submit(ask, tiny_server, [question]) for _ in range(3)]
        assert [each.result() for each in writing] == alone
        for answers in asking:
            check(answers.result(), [reference.answer(question)], within=2e-3)


@pytest.mark.model
@pytest.mark.long_prompts
def test_likelihoods_of_the_default_model(default_model: Path) -> None:
    reference = Reference(default_model)
    questions = [Question(prompt(i, 40 * i + 1), prompt(9, 5)) for i in range(3)]
    questions.append(reference.continued(prompt(5, 10), 3))
    with ServerProcess(str(default_model)) as server:
        check(ask(server, questions), [reference.answer(question) for question in questions], within=5e-3)
        (only,) = complete(server, prompt=questions[2].ids, max_tokens=0, logprobs=0, echo=True)
    rows = reference.logprobs(questions[2].ids)
    expected = [row[token_id] for row, token_id in zip(rows[:-1], questions[2].ids[1:], strict=True)]
    assert only["logprobs"]["token_logprobs"][1:] == pytest.approx(expected, abs=1e-3)
