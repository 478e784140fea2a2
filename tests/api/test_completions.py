"""POST /v1/completions: prompts as text and as ids, one and many, with and without an echo."""

from typing import cast

import orjson
import pytest
from quart import Quart

from tests.api.calling import call
from tests.api.fakes import PROMPT, FakeDesk, events, ids_of, says

pytestmark = pytest.mark.anyio

ROUTE = "/v1/completions"
Json = dict[str, object]


async def test_a_whole_reply_is_a_text_completion(app: Quart, desk: FakeDesk) -> None:
    reply = await call(app, "POST", ROUTE, PROMPT)
    assert reply.status == 200
    assert cast("str", reply.json["id"]).startswith("cmpl-")
    assert reply.json["object"] == "text_completion"
    assert reply.json["choices"] == [{"index": 0, "text": "Hello world.", "logprobs": None, "finish_reason": "stop"}]
    assert list(desk.admitted[0].prompt_ids) == ids_of("Once upon")


async def test_a_stream_is_text_completions_with_the_reason_at_the_end(app: Quart) -> None:
    reply = await call(app, "POST", ROUTE, PROMPT | {"stream": True, "stream_options": {"include_usage": True}})
    *data, usage, done = events(reply.body)
    assert (done, orjson.loads(usage)["choices"]) == (b"[DONE]", [])
    chunks = [orjson.loads(each) for each in data]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Hello world."
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Once", [ids_of("Once")]),
        (["Once", "upon"], [ids_of("Once"), ids_of("upon")]),
        ([5, 6, 7], [[5, 6, 7]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
        (["Once", [5, 6]], [ids_of("Once"), [5, 6]]),
    ],
)
async def test_a_prompt_is_text_or_ids_one_or_many(
    app: Quart, desk: FakeDesk, prompt: object, expected: list[list[int]]
) -> None:
    reply = await call(app, "POST", ROUTE, PROMPT | {"prompt": prompt})
    assert reply.status == 200
    assert [list(request.prompt_ids) for request in desk.admitted] == expected


async def test_choices_of_several_prompts_come_prompt_by_prompt(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("a", "b", "c", "d")
    reply = await call(app, "POST", ROUTE, PROMPT | {"prompt": ["Once", "upon"], "n": 2, "seed": 1})
    choices = cast("list[Json]", reply.json["choices"])
    assert [(each["index"], each["text"]) for each in choices] == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]
    assert [list(request.prompt_ids) for request in desk.admitted] == [ids_of("Once")] * 2 + [ids_of("upon")] * 2
    assert [request.sampling.seed for request in desk.admitted] == [1, 2, 1, 2]
    usage = cast("dict[str, int]", reply.json["usage"])
    assert usage["prompt_tokens"] == len(ids_of("Once")) + len(ids_of("upon"))


@pytest.mark.parametrize("prompt", ["Once upon", ids_of("Once upon")])
async def test_echo_puts_the_prompt_before_the_completion(app: Quart, prompt: object) -> None:
    reply = await call(app, "POST", ROUTE, PROMPT | {"prompt": prompt, "echo": True, "n": 2})
    assert [each["text"] for each in cast("list[Json]", reply.json["choices"])] == ["Once uponHello world."] * 2


async def test_a_streamed_echo_comes_first(app: Quart) -> None:
    reply = await call(app, "POST", ROUTE, PROMPT | {"echo": True, "stream": True})
    chunks = [orjson.loads(each) for each in events(reply.body)[:-1]]
    assert chunks[0]["choices"][0] == {"index": 0, "text": "Once upon", "logprobs": None, "finish_reason": None}
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Once uponHello world."


async def test_logprobs_have_the_older_form(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("Hé.")
    reply = await call(app, "POST", ROUTE, PROMPT | {"logprobs": 1})
    (only,) = cast("list[dict[str, Json]]", reply.json["choices"])
    assert only["logprobs"] == {
        "tokens": ["H", "\\xc3", "\\xa9", "."],
        "token_logprobs": [-0.25] * 4,
        "top_logprobs": [{"H": -0.25}, {"\\xc3": -0.25}, {"\\xa9": -0.25}, {".": -0.25}],
        "text_offset": [0, 1, 1, 2],
    }


async def test_logprobs_of_zero_tell_the_chosen_token_alone(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("Hi")
    reply = await call(app, "POST", ROUTE, PROMPT | {"logprobs": 0})
    (only,) = cast("list[dict[str, dict[str, list[Json]]]]", reply.json["choices"])
    assert [list(each) for each in only["logprobs"]["top_logprobs"]] == [["H"], ["i"]]
    assert desk.admitted[0].sampling.top_logprobs == 0
