"""Ten schemas on the default model: every whole answer is valid, and free rows beside them say what they always say."""

import json
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest
from tokenizers import Tokenizer

from actors import messages as m
from actors.replies import Replies
from actors.system import House
from api.structure import check, grammar, json_answer
from runtime.engine.hosts import make_host
from runtime.settings import Settings
from runtime.types import FinishReason, RequestId, Sampling
from tests.schemas import SCHEMAS, validate

pytestmark = [pytest.mark.anyio, pytest.mark.model, pytest.mark.long_prompts]

PROMPT = "Answer with JSON about a famous person. JSON: "
FREE = ("The capital of France is", "Once upon a time, in a small village by the sea, there lived")
TOKENS = 120


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the model is what is tested here, and it is slow


async def said(house: House, requests: Mapping[str, tuple[tuple[int, ...], Sampling]]) -> dict[str, list[int]]:
    """All tokens of requests that come in together; every one of them finishes, with STOP if it has a grammar."""
    output: dict[str, list[int]] = {name: [] for name in requests}
    with Replies() as replies:
        now = house.now()
        house.admit(
            tuple(
                m.Request(id, prompt, sampling, now, now + 600, replies.sink(id))
                for name, (prompt, sampling) in requests.items()
                for id in [RequestId(name)]
            )
        )
        async for reply in replies:
            assert not isinstance(reply, m.Failed | m.Rejected)
            if isinstance(reply, m.TokensDecoded | m.Finished):
                output[reply.request_id] += [token.token_id for token in reply.tokens]
            if isinstance(reply, m.Finished) and requests[reply.request_id][1].grammar:
                assert reply.reason is FinishReason.STOP, reply.request_id
    return output


async def test_every_answer_is_valid_beside_free_rows_that_do_not_notice(default_model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(default_model / "tokenizer.json"))
    prompt = tuple(tokenizer.encode(PROMPT).ids)
    requests: dict[str, tuple[tuple[int, ...], Sampling]] = {}
    for seed, (name, schema) in enumerate(SCHEMAS.items()):
        text = grammar(json_answer(schema, param="schema"))
        await check(text, param="schema")
        sampling = Sampling(max_tokens=TOKENS, temperature=seed % 2, seed=seed, grammar=text, stop_ids=frozenset({2}))
        requests[name] = (prompt, sampling)
    free = {text: (tuple(tokenizer.encode(text).ids), Sampling(max_tokens=24, temperature=0.0)) for text in FREE}
    settings = Settings(cache_memory_mb=0)
    house = House(settings, lambda: make_host(settings, default_model))
    async with anyio.create_task_group() as group:
        group.start_soon(house.run)
        await house.opened()
        alone = await said(house, free)
        output = await said(house, requests | free)
        group.cancel_scope.cancel()
    assert {name: output[name] for name in free} == alone
    for name, schema in SCHEMAS.items():
        validate(json.loads(tokenizer.decode(output[name])), schema)
