"""Bodies that are wrong: each is a 4xx in the envelope that names the field, and the next good one is served."""

import threading
from dataclasses import replace

import orjson
import pytest
from quart import Quart

from api.body import LARGE_BODY
from tests.api.calling import call
from tests.api.fakes import API_FACTS, CHAT, PROMPT, FakeDesk

pytestmark = pytest.mark.anyio

CHAT_ROUTE, COMPLETIONS_ROUTE = "/v1/chat/completions", "/v1/completions"


def user(content: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}]}


def tool_call(arguments: object) -> dict[str, object]:
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [{"role": "assistant", "tool_calls": [called]}]}


TOOL = {"type": "function", "function": {"name": "f"}}

ARGUMENTS = "messages.0.tool_calls.0.function.arguments"

BAD_CHATS: list[tuple[dict[str, object], str]] = [
    ({"model": 5}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": [5]}, "messages.0"),
    ({"messages": [{"role": "user", "content": "Hi"}] * 10_001}, "messages"),
    ({"messages": [{"content": "Hi"}]}, "messages.0.role"),
    ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "Hi", "mood": "good"}]}, "messages.0.mood"),
    ({"messages": [{"role": "user", "content": "Hi", "tool_call_id": "c"}]}, "messages.0.tool_call_id"),
    ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages.0.tool_call_id"),
    ({"messages": [{"role": "user", "content": "Hi"}, tool_call("{}")]}, "messages.1.messages"),
    (user(5), "messages.0.content"),
    (user([]), "messages.0.content"),
    (user(["Hi"]), "messages.0.content.0"),
    (user([{"type": "text"}]), "messages.0.content.0"),
    (user([{"type": "text", "text": 5}]), "messages.0.content.0"),
    (user([{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "x"}}]), "messages.0.content.1"),
    (user([{"type": "input_audio", "input_audio": {}}]), "messages.0.content.0"),
    (tool_call({}), ARGUMENTS),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"seed": "1"}, "seed"),
    ({"seed": 1e30}, "seed"),
    ({"stop": ""}, "stop.0"),
    ({"stop": ["a", ""]}, "stop.1"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"stop": 5}, "stop"),
    ({"stop": ["a" * 1025]}, "stop.0"),
    ({"logit_bias": []}, "logit_bias"),
    ({"logit_bias": {"x": 1}}, "logit_bias.x"),
    ({"logit_bias": {"-1": 1}}, "logit_bias.-1"),
    ({"logit_bias": {"٣": 1}}, "logit_bias.٣"),
    ({"logit_bias": {"512": 1}}, "logit_bias.512"),
    ({"logit_bias": {"99999999999999999999": 1}}, "logit_bias.99999999999999999999"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5"),
    ({"logit_bias": {str(id): 1 for id in range(1025)}}, "logit_bias"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": 1}, "logprobs"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
    ({"response_format": {"type": "json_object", "json_schema": {"schema": {}}}}, "response_format.json_schema"),
    ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools.0.type"),
    ({"tools": [{"type": "function"}]}, "tools.0.function"),
    ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools.0.function.name"),
    ({"tools": [TOOL, TOOL]}, "tools"),
    ({"tools": [TOOL] * 513}, "tools"),
    ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"verbosity": "high"}, "verbosity"),
    ({"modalities": ["text", "audio"]}, "modalities.1"),
    ({"diagnostics_level": "thorough"}, "diagnostics_level"),
    ({"chat_template_kwargs": []}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template"),
    ({"prompt": "Hi"}, "prompt"),
    ({"x" * 1000: 1}, "x" * 100),
]

NOT_YET = ["functions", "function_call", "audio", "prediction", "web_search_options"]

BAD_COMPLETIONS: list[tuple[dict[str, object], str]] = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": ["a"] * 65}, "prompt"),
    ({"prompt": ["a", ""]}, "prompt.1"),
    ({"prompt": ["a", 5]}, "prompt.1"),
    ({"prompt": [5, "a"]}, "prompt"),
    ({"prompt": [True]}, "prompt.0"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [512]}, "prompt"),
    ({"prompt": [1e30]}, "prompt.0"),
    ({"prompt": [[5], []]}, "prompt.1"),
    ({"prompt": [[5], [[6]]]}, "prompt.1"),
    ({"prompt": [5] * 256}, "prompt"),
    ({"logprobs": 6}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1, "echo": True}, "max_tokens"),
    ({"best_of": 2}, "best_of"),
    ({"best_of": 0}, "best_of"),
    ({"best_of": 3, "n": 2}, "best_of"),
    ({"suffix": "x"}, "suffix"),
    ({"messages": []}, "messages"),
]

BAD_BYTES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"hi"',
    b"{'model': 'x'}",
    b'{"temperature": NaN}',
    b'{"temperature": Infinity}',
    b'{"temperature": 1e999}',
    b'{"model": "\xff"}',
    b'{"model": "\\ud800"}',
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"model": "x", "messages": ' + b"[" * 1000 + b"]" * 1000 + b"}",
]


async def test_the_good_body_that_the_bad_ones_are_made_from_is_served(app: Quart) -> None:
    assert (await call(app, "POST", CHAT_ROUTE, CHAT)).status == 200
    assert (await call(app, "POST", COMPLETIONS_ROUTE, PROMPT)).status == 200


async def test_every_bad_chat_is_a_400_that_names_the_field(app: Quart, desk: FakeDesk) -> None:
    for given, param in BAD_CHATS:
        reply = await call(app, "POST", CHAT_ROUTE, CHAT | given)
        assert reply.status == 400, given
        assert reply.error["param"] == param
        assert reply.error["type"] == "invalid_request_error"
        assert len(reply.body) < 1000
    assert desk.admitted == []
    assert (await call(app, "POST", CHAT_ROUTE, CHAT)).status == 200


async def test_every_bad_completion_is_a_400_that_names_the_field(app: Quart, desk: FakeDesk) -> None:
    for given, param in BAD_COMPLETIONS:
        reply = await call(app, "POST", COMPLETIONS_ROUTE, PROMPT | given)
        assert reply.status == 400, given
        assert reply.error["param"] == param
    assert desk.admitted == []
    assert (await call(app, "POST", COMPLETIONS_ROUTE, PROMPT)).status == 200


async def test_every_field_not_honoured_yet_is_a_400_that_says_so(app: Quart, desk: FakeDesk) -> None:
    for name in NOT_YET:
        values: list[object] = [[], False, "auto"]
        for value in values:
            reply = await call(app, "POST", CHAT_ROUTE, CHAT | {name: value})
            assert (reply.status, reply.error["param"]) == (400, name)
            assert "not supported" in str(reply.error["message"])
    assert desk.admitted == []


async def test_a_null_is_the_same_as_nothing(app: Quart) -> None:
    nulls = dict.fromkeys([*NOT_YET, "temperature", "stop", "n", "stream", "logit_bias", "logprobs"])
    message = {"role": "user", "content": "Hi", "name": None, "tool_calls": None, "refusal": None}
    assert (await call(app, "POST", CHAT_ROUTE, CHAT | nulls | {"messages": [message]})).status == 200


@pytest.mark.parametrize("route", [CHAT_ROUTE, COMPLETIONS_ROUTE])
async def test_bytes_that_are_no_json_object_are_a_400(app: Quart, desk: FakeDesk, route: str) -> None:
    for raw in BAD_BYTES:
        reply = await call(app, "POST", route, raw)
        assert reply.status == 400, raw[:40]
        assert reply.error["message"]
    assert desk.admitted == []
    assert (await call(app, "POST", CHAT_ROUTE, CHAT)).status == 200


@pytest.mark.parametrize(("levels", "status"), [(200, 200), (260, 400), (1000, 400), (2000, 400)])
@pytest.mark.parametrize(
    "field",
    [
        '"metadata":%s',
        '"chat_template_kwargs":{"a":%s}',
        '"tools":[{"type":"function","function":{"name":"f","parameters":{"x":%s}}}],"tool_choice":"none"',
    ],
)
async def test_deeply_nested_values_do_no_harm(app: Quart, field: str, levels: int, status: int) -> None:
    deep = "[" * levels + "]" * levels
    body = orjson.dumps(CHAT).decode()[:-1] + "," + field % deep + "}"
    assert (await call(app, "POST", CHAT_ROUTE, body.encode())).status == status


@pytest.mark.parametrize("levels", [20, 260, 2_000])
async def test_deeply_nested_arguments_do_no_harm(app: Quart, desk: FakeDesk, levels: int) -> None:
    desk.model_facts = replace(API_FACTS, context_tokens=100_000)
    deep = '{"a":' * levels + "1" + "}" * levels
    called = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": deep}}]}
    reply = await call(app, "POST", CHAT_ROUTE, CHAT | {"messages": [{"role": "user", "content": "Hi"}, called]})
    assert reply.status == 200


async def test_an_image_is_refused_because_the_model_is_text_only(app: Quart) -> None:
    reply = await call(app, "POST", CHAT_ROUTE, CHAT | user([{"type": "image_url", "image_url": {"url": "x"}}]))
    assert "text-only" in str(reply.error["message"])


async def test_a_prompt_that_fills_the_context_is_refused_with_its_length(app: Quart) -> None:
    reply = await call(app, "POST", CHAT_ROUTE, CHAT | user("word " * 300))
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    assert reply.error["param"] == "messages"
    assert "255 maximum" in str(reply.error["message"])


async def test_a_prompt_that_leaves_room_for_one_token_is_served(app: Quart, desk: FakeDesk) -> None:
    assert (await call(app, "POST", COMPLETIONS_ROUTE, PROMPT | {"prompt": [5] * 255})).status == 200
    assert desk.admitted[0].sampling.max_tokens == 1


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_that_is_not_json_by_its_type_is_a_415(app: Quart, content_type: str) -> None:
    reply = await call(app, "POST", CHAT_ROUTE, CHAT, content_type=content_type)
    assert reply.status == 415
    assert "application/json" in str(reply.error["message"])


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.api+json", ""])
async def test_any_way_to_say_json_or_nothing_is_taken(app: Quart, content_type: str) -> None:
    assert (await call(app, "POST", CHAT_ROUTE, CHAT, content_type=content_type)).status == 200


async def test_a_body_of_twenty_megabytes_is_a_413(app: Quart, desk: FakeDesk) -> None:
    reply = await call(app, "POST", CHAT_ROUTE, CHAT | user("x" * 20_000_000))
    assert (reply.status, reply.error["type"]) == (413, "invalid_request_error")
    assert (await call(app, "POST", CHAT_ROUTE, CHAT)).status == 200


async def test_a_body_of_many_small_things_is_refused_at_once(app: Quart) -> None:
    many = {str(number): 1000 for number in range(300_000)}
    bodies: list[dict[str, object]] = [{"logit_bias": many}, {**many}, {"messages": [{}] * 300_000}]
    for given in bodies:
        assert (await call(app, "POST", CHAT_ROUTE, CHAT | given)).status == 400


async def test_a_body_that_does_not_come_is_a_408(app: Quart, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.call.UPLOAD_S", 0.01)
    app.config["BODY_TIMEOUT"] = 0.01
    reply = await call(app, "POST", CHAT_ROUTE, CHAT, unfinished=True)
    assert (reply.status, reply.error["type"]) == (408, "invalid_request_error")
    assert reply.headers["connection"] == "close"
    assert desk.admitted == []


async def test_a_large_body_is_read_beside_the_event_loop(app: Quart, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def note(_body: object) -> bool:
        threads.append(threading.current_thread() is threading.main_thread())
        return True

    monkeypatch.setattr("api.body.too_deep", note)
    for text in ("Hi", "x" * LARGE_BODY):
        assert (await call(app, "POST", CHAT_ROUTE, CHAT | user(text))).status == 400
    assert threads == [True, False]
