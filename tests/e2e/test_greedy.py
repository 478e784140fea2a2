"""Greedy output of the default model equals mlx_lm's own, token by token, whatever the company."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import mlx.core as mx
import pytest
from mlx_lm import load, stream_generate

from actors import messages as m
from actors.replies import Replies
from actors.system import House
from runtime.engine.hosts import make_host
from runtime.settings import Settings
from runtime.types import CancelCause, RequestId, Sampling

pytestmark = [pytest.mark.anyio, pytest.mark.model]

TOKENS = 16
LONG = "The history of the city begins with a small harbour, two rivers and a market. Its people traded salt, wool and "
PROMPTS = (
    "The",
    "The capital of France is",
    "def fibonacci(n):",
    "1, 2, 3, 4, 5, 6,",
    "Once upon a time, in a small village by the sea, there lived",
    "List three colours: red,",
    "Water boils at one hundred degrees, and ice melts at",
    LONG,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the model is what is tested here, and it is slow


@pytest.fixture(scope="module")
def expected(default_model: Path) -> dict[str, tuple[tuple[int, ...], list[int]]]:
    """By prompt: its ids, and what mlx_lm generates after them from the same directory."""
    model, tokenizer, *_ = load(str(default_model))
    found = {}
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt)
        found[prompt] = (tuple(ids), [r.token for r in stream_generate(model, tokenizer, ids, max_tokens=TOKENS)])
    mx.clear_cache()
    return found


@asynccontextmanager
async def serving(model: Path) -> AsyncIterator[House]:
    settings = Settings(cache_memory_mb=0)  # every prompt is computed
    house = House(settings, lambda: make_host(settings, model))
    async with anyio.create_task_group() as group:
        group.start_soon(house.run)
        await house.opened()
        yield house
        group.cancel_scope.cancel()


def ask(house: House, replies: Replies, name: str, ids: tuple[int, ...], sampling: Sampling) -> m.Request:
    now = house.now()
    request_id = RequestId(name)
    return m.Request(request_id, ids, sampling, now, now + 600, replies.sink(request_id))


GREEDY = Sampling(max_tokens=TOKENS, temperature=0.0, stop_ids=frozenset({2}))


async def answers(house: House, requests: dict[str, tuple[tuple[int, ...], Sampling]]) -> dict[str, list[int]]:
    """Output ids of requests that come in together. Those whose name begins with `cancel` are cancelled
    after a few tokens."""
    output: dict[str, list[int]] = {name: [] for name in requests}
    with Replies() as replies:
        house.admit(tuple(ask(house, replies, name, *request) for name, request in requests.items()))
        async for reply in replies:
            assert not isinstance(reply, m.Failed | m.Rejected)
            if isinstance(reply, m.TokensDecoded | m.Finished):
                output[reply.request_id] += [token.token_id for token in reply.tokens]
            if reply.request_id.startswith("cancel") and len(output[reply.request_id]) > 3:
                house.cancel(reply.request_id, CancelCause.CLIENT_LEFT)
    return output


Expected = dict[str, tuple[tuple[int, ...], list[int]]]


async def test_one_at_a_time(default_model: Path, expected: Expected) -> None:
    async with serving(default_model) as house:
        for prompt, (ids, reference) in expected.items():
            assert (await answers(house, {prompt: (ids, GREEDY)}))[prompt] == reference


async def test_all_eight_at_once(default_model: Path, expected: Expected) -> None:
    async with serving(default_model) as house:
        output = await answers(house, {prompt: (ids, GREEDY) for prompt, (ids, _) in expected.items()})
    assert output == {prompt: reference for prompt, (_, reference) in expected.items()}


async def test_all_eight_among_eight_others_of_other_settings(default_model: Path, expected: Expected) -> None:
    others = (
        replace(GREEDY, temperature=1.0, seed=1),
        replace(GREEDY, temperature=0.7, top_p=0.8, seed=2),
        replace(GREEDY, temperature=1.3, top_k=40, seed=3),
        replace(GREEDY, temperature=0.9, min_p=0.1, seed=4),
        replace(GREEDY, repetition_penalty=1.3),
        replace(GREEDY, presence_penalty=1.5, frequency_penalty=0.5, top_logprobs=5),
        replace(GREEDY, logit_bias=((28, 50.0),)),
        replace(GREEDY, stop_ids=frozenset({28, 30, 198}), max_tokens=40),
    )
    company: dict[str, tuple[tuple[int, ...], Sampling]] = {}
    for i, (prompt, (ids, _)) in enumerate(expected.items()):
        company[prompt] = (ids, GREEDY)
        company[f"cancel {i}" if i % 3 == 0 else f"other {i}"] = (ids[: 1 + i], others[i])
    async with serving(default_model) as house:
        output = await answers(house, company)
    assert {prompt: output[prompt] for prompt in PROMPTS} == {p: reference for p, (_, reference) in expected.items()}
    assert all(output[name] for name in company)
    assert all(len(output[name]) < TOKENS for name in company if name.startswith("cancel"))
