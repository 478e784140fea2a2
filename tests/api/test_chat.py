"""POST /v1/chat/completions: what reaches the desk, and what a client reads, whole and streamed."""

from typing import cast

import orjson
import pytest
from quart import Quart

from api.text.codec import HfCodec
from runtime.types import CancelCause, FinishReason
from tests.api.calling import Reply, call
from tests.api.fakes import CHAT, FakeDesk, begins, events, ids_of, make_app, says

pytestmark = pytest.mark.anyio

ROUTE = "/v1/chat/completions"
Json = dict[str, object]


def chunks(reply: Reply) -> list[Json]:
    """The chunks of a stream that ended well."""
    *data, done = events(reply.body)
    assert (reply.status, done) == (200, b"[DONE]")
    return [orjson.loads(each) for each in data]


def choice(chunk: Json) -> Json:
    (only,) = cast("list[Json]", chunk["choices"])
    return only


def text_of(reply: Reply, index: int = 0) -> str:
    """The deltas of one choice, put together."""
    choices = [choice(chunk) for chunk in chunks(reply)]
    return "".join(
        cast("dict[str, str]", each["delta"]).get("content", "") for each in choices if each["index"] == index
    )


async def test_a_whole_reply_is_a_chat_completion(app: Quart, desk: FakeDesk) -> None:
    reply = await call(app, "POST", ROUTE, CHAT)
    body = reply.json
    assert reply.status == 200
    assert cast("str", body.pop("id")).startswith("chatcmpl-")
    assert isinstance(body.pop("created"), int)
    prompt = len(desk.admitted[0].prompt_ids)
    said = len(ids_of("Hello world.")) + 1
    assert body == {
        "object": "chat.completion",
        "model": "tiny/llama",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello world."},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": said,
            "total_tokens": prompt + said,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def test_a_stream_begins_with_the_role_goes_on_with_text_and_ends_with_the_reason(app: Quart) -> None:
    reply = await call(app, "POST", ROUTE, CHAT | {"stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert (reply.headers["cache-control"], reply.headers["x-accel-buffering"]) == ("no-cache", "no")
    first, *middle, last = chunks(reply)
    assert {chunk["object"] for chunk in (first, *middle, last)} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in (first, *middle, last)}) == 1
    assert choice(first) == {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    assert "".join(cast("dict[str, str]", choice(chunk)["delta"])["content"] for chunk in middle) == "Hello world."
    assert choice(last) == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert all("usage" not in chunk for chunk in (first, *middle, last))


async def test_usage_comes_in_a_last_chunk_without_choices_if_asked_for(app: Quart) -> None:
    whole = await call(app, "POST", ROUTE, CHAT)
    reply = await call(app, "POST", ROUTE, CHAT | {"stream": True, "stream_options": {"include_usage": True}})
    *others, last = chunks(reply)
    assert all(chunk["usage"] is None for chunk in others)
    assert (last["choices"], last["usage"]) == ([], whole.json["usage"])


async def test_several_choices_are_several_requests_with_seeds_of_their_own(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("One.", "Two.", "Three.")
    reply = await call(app, "POST", ROUTE, CHAT | {"n": 3, "seed": 41})
    choices = cast("list[dict[str, dict[str, str]]]", reply.json["choices"])
    assert [each["message"]["content"] for each in choices] == ["One.", "Two.", "Three."]
    assert [request.sampling.seed for request in desk.admitted] == [41, 42, 43]
    assert [request.request_id for request in desk.admitted] == [f"{reply.json['id']}-{index}" for index in range(3)]


async def test_usage_counts_a_prompt_once_and_every_choice(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("One.", "Number two.", cached_tokens=5)
    usage = cast("dict[str, object]", (await call(app, "POST", ROUTE, CHAT | {"n": 2})).json["usage"])
    assert usage["prompt_tokens"] == len(desk.admitted[0].prompt_ids)
    assert usage["completion_tokens"] == len(ids_of("One.")) + len(ids_of("Number two.")) + 2
    assert usage["prompt_tokens_details"] == {"cached_tokens": 5}


async def test_several_streamed_choices_are_told_apart_by_their_index(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("One.", "Two.")
    reply = await call(app, "POST", ROUTE, CHAT | {"n": 2, "stream": True})
    assert (text_of(reply, 0), text_of(reply, 1)) == ("One.", "Two.")
    ends = [choice(chunk)["index"] for chunk in chunks(reply) if choice(chunk)["finish_reason"]]
    assert sorted(cast("list[int]", ends)) == [0, 1]


async def test_a_stop_string_ends_the_text_before_it_and_cancels_the_request(app: Quart, desk: FakeDesk) -> None:
    desk.script = begins("Hello world. And so on")
    reply = await call(app, "POST", ROUTE, CHAT | {"stop": ["world", "never"]})
    (only,) = cast("list[Json]", reply.json["choices"])
    assert (only["message"], only["finish_reason"]) == ({"role": "assistant", "content": "Hello "}, "stop")
    assert cast("dict[str, int]", reply.json["usage"])["completion_tokens"] == len(ids_of("Hello world"))
    assert desk.causes == [CancelCause.STOP_STRING]


async def test_a_streamed_stop_string_is_never_shown_not_even_in_part(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("Hello world. And so on")
    reply = await call(app, "POST", ROUTE, CHAT | {"stop": "world.", "stream": True})
    assert text_of(reply) == "Hello "
    assert [end for chunk in chunks(reply) if (end := choice(chunk)["finish_reason"])] == ["stop"]
    assert desk.causes == [CancelCause.STOP_STRING]


async def test_text_held_back_for_a_stop_string_is_sent_when_it_turns_out_to_be_none(
    app: Quart, desk: FakeDesk
) -> None:
    desk.script = says("Hello world")
    reply = await call(app, "POST", ROUTE, CHAT | {"stop": "world!", "stream": True})
    assert text_of(reply) == "Hello world"


async def test_a_choice_cut_off_by_its_length_says_so(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("Hello", reason=FinishReason.LENGTH)
    (only,) = cast("list[Json]", (await call(app, "POST", ROUTE, CHAT)).json["choices"])
    assert only["finish_reason"] == "length"


async def test_logprobs_name_each_token_its_bytes_and_its_rivals(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("Hé")
    reply = await call(app, "POST", ROUTE, CHAT | {"logprobs": True, "top_logprobs": 1})
    (only,) = cast("list[dict[str, dict[str, list[Json]]]]", reply.json["choices"])
    content = only["logprobs"]["content"]
    assert [(entry["token"], entry["bytes"]) for entry in content] == [
        ("H", [0x48]),
        ("\\xc3", [0xC3]),
        ("\\xa9", [0xA9]),
    ]
    assert content[0]["logprob"] == -0.25
    assert content[0]["top_logprobs"] == [{"token": "H", "bytes": [0x48], "logprob": -0.25}]


async def test_logprobs_without_rivals_have_an_empty_list_of_them(app: Quart) -> None:
    reply = await call(app, "POST", ROUTE, CHAT | {"logprobs": True})
    (only,) = cast("list[dict[str, dict[str, list[Json]]]]", reply.json["choices"])
    assert [entry["top_logprobs"] for entry in only["logprobs"]["content"]] == [[]] * len(ids_of("Hello world."))


async def test_streamed_logprobs_are_never_ahead_of_their_text_and_complete_in_the_end(
    app: Quart, desk: FakeDesk
) -> None:
    desk.script = says("Hello wörld.")
    reply = await call(app, "POST", ROUTE, CHAT | {"logprobs": True, "stream": True, "stop": "wörld!"})
    text, scored = "", b""
    for each in map(choice, chunks(reply)):
        text += cast("dict[str, str]", each["delta"]).get("content", "")
        if each["logprobs"]:
            content = cast("dict[str, list[dict[str, list[int]]]]", each["logprobs"])["content"]
            scored += b"".join(bytes(entry["bytes"]) for entry in content)
        assert text.encode().startswith(scored)
    assert scored.decode() == "Hello wörld."


async def test_every_setting_reaches_its_row(app: Quart, desk: FakeDesk) -> None:
    given = {
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "seed": 3,
        "logit_bias": {"5": -100, "6": 2.5},
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "repetition_penalty": 1.1,
        "logprobs": True,
        "top_logprobs": 4,
        "user": "me",
        "metadata": {"a": "b"},
        "store": False,
        "response_format": {"type": "text"},
    }
    assert (await call(app, "POST", ROUTE, CHAT | given)).status == 200
    sampling = desk.admitted[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (7, 0.5, 0.9, 40)
    assert (sampling.min_p, sampling.seed, sampling.logit_bias) == (0.05, 3, ((5, -100.0), (6, 2.5)))
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty) == (0.1, 0.2, 1.1)
    assert (sampling.top_logprobs, sampling.stop_ids) == (4, frozenset({2}))


@pytest.mark.parametrize(("top_k", "expected"), [(-1, 0), (0, 0), (1, 1), (511, 511), (512, 0), (10**9, 0)])
async def test_a_top_k_that_leaves_the_whole_vocabulary_is_off(
    app: Quart, desk: FakeDesk, top_k: int, expected: int
) -> None:
    await call(app, "POST", ROUTE, CHAT | {"top_k": top_k})
    assert desk.admitted[0].sampling.top_k == expected


async def test_what_a_request_leaves_open_is_the_operators_choice(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    app = make_app(
        desk, fresh_codec, anyio_backend, default_temperature=0.3, default_top_p=0.8, max_tokens=11, timeout=7
    )
    await call(app, "POST", ROUTE, CHAT | {"temperature": None, "stop": None, "seed": None})
    (request,) = desk.admitted
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.max_tokens) == (0.3, 0.8, 11)
    assert request.deadline == request.arrived_at + 7


async def test_requests_without_a_seed_get_different_ones(app: Quart, desk: FakeDesk) -> None:
    for _ in range(2):
        await call(app, "POST", ROUTE, CHAT)
    first, second = desk.admitted
    assert first.sampling.seed != second.sampling.seed


async def test_max_tokens_is_bounded_by_the_room_the_prompt_leaves(app: Quart, desk: FakeDesk) -> None:
    await call(app, "POST", ROUTE, CHAT | {"max_tokens": 10_000_000})
    (request,) = desk.admitted
    assert len(request.prompt_ids) + request.sampling.max_tokens == 256


async def test_news_is_reported_as_often_as_somebody_needs_it(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, stream_interval=3)
    for given in ({"stream": True}, {"stop": "x"}, {}):
        await call(app, "POST", ROUTE, CHAT | given)
    assert [request.report_every for request in desk.admitted] == [3, 1, 32]


async def test_a_stream_interval_loses_no_text(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, stream_interval=5)
    reply = await call(app, "POST", ROUTE, CHAT | {"stream": True})
    assert text_of(reply) == "Hello world."
    assert len(chunks(reply)) < len(ids_of("Hello world."))


async def test_the_conversation_reaches_the_template_as_the_roles_demand(app: Quart, desk: FakeDesk) -> None:
    tool_call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}],
            "name": "Ann",
        },
        {"role": "assistant", "content": None, "tool_calls": [tool_call]},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]
    assert (await call(app, "POST", ROUTE, CHAT | {"messages": messages})).status == 200
    rendered = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat now?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n42\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert list(desk.admitted[0].prompt_ids) == ids_of(rendered)


async def test_diagnostics_come_with_the_reply_if_asked_for(app: Quart) -> None:
    asked = CHAT | {"include_diagnostics": True, "diagnostics_level": "basic"}
    whole = (await call(app, "POST", ROUTE, asked)).json
    assert "diagnostics" not in (await call(app, "POST", ROUTE, CHAT)).json
    used = cast("dict[str, int]", whole["usage"])["total_tokens"]
    context = cast("dict[str, Json]", whole["diagnostics"])["context"]
    assert (context["used_tokens"], context["limit_tokens"]) == (used, 256)
    *_, last = chunks(await call(app, "POST", ROUTE, asked | {"stream": True}))
    assert (last["choices"], last["diagnostics"]) == ([], whole["diagnostics"])
    assert "usage" not in last


async def test_logprobs_that_were_asked_for_are_a_list_even_where_there_is_no_token(app: Quart, desk: FakeDesk) -> None:
    desk.script = begins("Hello")
    body = (await call(app, "POST", ROUTE, CHAT | {"logprobs": True, "stop": "H"})).json
    (only,) = cast("list[dict[str, Json]]", body["choices"])
    assert only["logprobs"]["content"] == []
