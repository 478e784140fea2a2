"""POST /v1/completions: prompts as text and as ids, one and many, with and without an echo."""

from typing import Any, cast

import orjson
import pytest
from quart import Quart

from runtime.types import FinishReason
from tests.api.calling import call
from tests.api.fakes import PROMPT, TOKENIZER, FakeDesk, events, ids_of, says

pytestmark = pytest.mark.anyio

ROUTE = "/v1/completions"
Json = dict[str, object]
Choice = dict[str, Any]


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
        "tokens": ["H", "\\xc3", "\\xa9", ".", "<|im_end|>"],
        "token_logprobs": [-0.25] * 5,
        "top_logprobs": [{"H": -0.25}, {"\\xc3": -0.25}, {"\\xa9": -0.25}, {".": -0.25}, {"<|im_end|>": -0.25}],
        "text_offset": [0, 1, 1, 2, 3],
    }


async def test_logprobs_of_zero_tell_the_chosen_token_alone(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("Hi")
    reply = await call(app, "POST", ROUTE, PROMPT | {"logprobs": 0})
    (only,) = cast("list[dict[str, dict[str, list[Json]]]]", reply.json["choices"])
    assert [list(each) for each in only["logprobs"]["top_logprobs"]] == [["H"], ["i"], ["<|im_end|>"]]
    assert desk.admitted[0].sampling.top_logprobs == 0


SCORED: Json = PROMPT | {"echo": True, "logprobs": 1}


def joined(chunks: list[Choice]) -> Json:
    """The logprobs of a choice's chunks, one behind the other."""
    parts = [chunk["logprobs"] for chunk in chunks if chunk["logprobs"]]
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


async def choices_of(app: Quart, body: Json) -> list[Choice]:
    reply = await call(app, "POST", ROUTE, body)
    assert reply.status == 200, reply.body
    return cast("list[Choice]", reply.json["choices"])


async def test_a_scored_echo_begins_with_the_prompts_tokens_of_which_the_first_has_no_score(
    app: Quart, desk: FakeDesk
) -> None:
    desk.script = says("Hi", reason=FinishReason.LENGTH)
    (only,) = await choices_of(app, SCORED | {"prompt": ids_of("Once up")})
    tokens = [TOKENIZER.decode([token_id]) for token_id in ids_of("Once up")]
    above = [TOKENIZER.decode([token_id + 1]) for token_id in ids_of("Once up")]
    assert only["text"] == "Once upHi"
    assert only["logprobs"] == {
        "tokens": [*tokens, "H", "i"],
        "token_logprobs": [None, *(-float(i) for i in range(1, len(tokens))), -0.25, -0.25],
        "top_logprobs": [
            None,
            *({above[i]: -0.125, tokens[i]: -float(i)} for i in range(1, len(tokens))),
            {"H": -0.25},
            {"i": -0.25},
        ],
        "text_offset": [*(len("".join(tokens[:i])) for i in range(len(tokens))), 7, 8],
    }


@pytest.mark.parametrize("prompt", ["Once upon a 🦊", ids_of("Once upon a 🦊"), ["Once", "upon"], [[20, 21], [22]]])
@pytest.mark.parametrize("max_tokens", [0, 9])
async def test_a_streamed_scored_echo_is_the_first_chunk_of_each_choice_and_says_what_a_whole_one_does(
    app: Quart, prompt: object, max_tokens: int
) -> None:
    body = SCORED | {"prompt": prompt, "max_tokens": max_tokens, "n": 2}
    whole = await choices_of(app, body)
    reply = await call(app, "POST", ROUTE, body | {"stream": True})
    chunks = [cast("Choice", orjson.loads(each)["choices"][0]) for each in events(reply.body)[:-1]]
    assert {chunk["index"] for chunk in chunks} == {choice["index"] for choice in whole}
    for choice in whole:
        mine = [chunk for chunk in chunks if chunk["index"] == choice["index"]]
        assert mine[0]["logprobs"]["token_logprobs"][0] is None
        assert "".join(chunk["text"] for chunk in mine) == choice["text"]
        assert joined(mine) == choice["logprobs"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"] == ("stop" if max_tokens else "length")


async def test_a_request_for_scores_alone_costs_no_completion(app: Quart, desk: FakeDesk) -> None:
    reply = await call(app, "POST", ROUTE, SCORED | {"max_tokens": 0, "logprobs": 0})
    (only,) = cast("list[Choice]", reply.json["choices"])
    assert (only["text"], only["finish_reason"]) == ("Once upon", "length")
    assert len(only["logprobs"]["tokens"]) == len(ids_of("Once upon"))
    assert cast("Json", reply.json["usage"])["completion_tokens"] == 0
    assert (desk.admitted[0].score_prompt, desk.admitted[0].sampling.max_tokens) == (0, 0)


async def test_an_echo_without_scores_may_come_alone_too(app: Quart, desk: FakeDesk) -> None:
    (only,) = await choices_of(app, PROMPT | {"echo": True, "max_tokens": 0})
    assert only == {"index": 0, "text": "Once upon", "logprobs": None, "finish_reason": "length"}
    assert desk.admitted[0].score_prompt is None


async def test_without_an_echo_no_prompt_is_scored(app: Quart, desk: FakeDesk) -> None:
    await choices_of(app, PROMPT | {"logprobs": 2})
    assert desk.admitted[0].score_prompt is None


@pytest.mark.parametrize(
    ("prompt", "text", "offsets"),
    [("a<|im_end|>b", "a<|im_end|>b", [0, 1, 11]), ([*ids_of("a"), 2, *ids_of("b")], "ab", [0, 1, 1])],
    ids=["in a text", "among ids"],
)
async def test_a_special_token_has_the_text_that_it_has_in_the_echo(
    app: Quart, prompt: object, text: str, offsets: list[int]
) -> None:
    (only,) = await choices_of(app, SCORED | {"prompt": prompt, "max_tokens": 0})
    assert only["text"] == text
    assert only["logprobs"]["tokens"] == ["a", "<|im_end|>", "b"]
    assert only["logprobs"]["text_offset"] == offsets


@pytest.mark.parametrize("end", ["", "o"], ids=["at once", "behind a token"])
async def test_there_is_a_score_for_every_token_that_the_usage_counts(app: Quart, desk: FakeDesk, end: str) -> None:
    desk.script = says(end)
    reply = await call(app, "POST", ROUTE, SCORED)
    (only,) = cast("list[Choice]", reply.json["choices"])
    usage = cast("Json", reply.json["usage"])
    assert usage["completion_tokens"] == len(ids_of(end)) + 1
    assert len(only["logprobs"]["token_logprobs"]) == usage["total_tokens"]
    assert only["logprobs"]["tokens"][-1] == "<|im_end|>"


@pytest.mark.parametrize(
    "given", [{"best_of": 1}, {"best_of": 1, "n": 2}, {"best_of": 2, "n": 2}, {"suffix": ""}, {"suffix": None}]
)
async def test_what_changes_nothing_is_taken(app: Quart, given: Json) -> None:
    assert len(await choices_of(app, PROMPT | given)) == given.get("n", 1)
