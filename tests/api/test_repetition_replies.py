"""How a reply says that it was ended for its repetition, who may choose the policy, and where there is none."""

from typing import cast

import orjson
import pytest
from quart import Quart

from api.text.codec import HfCodec
from runtime.types import CancelCause
from tests.api.calling import Reply, call
from tests.api.fakes import CHAT, TOKENIZER, FakeDesk, events, ids_of, make_app, says

pytestmark = pytest.mark.anyio

Json = dict[str, object]
CHATS, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PROMPT: Json = {"model": "default", "prompt": "Hi"}
LOOP = "I do not know what to say. " * 90
SHORT_LOOP = "Yes! " * 40
"""Nothing to `safe`."""
DETECTED: Json = {"finish_reason": "stop", "stop_reason": "repetition_detected", "stop_reason_detail": "phrase_loop"}


def choices_of(body: Json) -> list[Json]:
    return cast("list[Json]", body["choices"])


def chunks(reply: Reply) -> list[Json]:
    *data, done = events(reply.body)
    assert (reply.status, done) == (200, b"[DONE]")
    return [orjson.loads(each) for each in data]


def why(choice: Json) -> Json:
    return {name: value for name, value in choice.items() if name in DETECTED}


@pytest.fixture(autouse=True)
def looping(desk: FakeDesk) -> None:
    desk.script = says(LOOP)


@pytest.fixture
def app(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> Quart:
    """The desk says all at once, and must find room for it."""
    return make_app(desk, fresh_codec, anyio_backend, stream_interval=30)


async def test_a_whole_chat_says_so_and_all_that_was_said_up_to_there_is_in_it(app: Quart, desk: FakeDesk) -> None:
    body = (await call(app, "POST", CHATS, CHAT)).json
    (choice,) = choices_of(body)
    taken = cast("dict[str, int]", body["usage"])["completion_tokens"]
    assert why(choice) == DETECTED
    assert 200 < taken < len(ids_of(LOOP)) / 2
    assert cast("Json", choice["message"])["content"] == TOKENIZER.decode(ids_of(LOOP)[:taken])
    assert desk.cancelled == [(desk.admitted[0].request_id, CancelCause.STOP_STRING)]


async def test_the_last_chunk_of_a_stream_says_so_and_no_other(app: Quart) -> None:
    whole = choices_of((await call(app, "POST", CHATS, CHAT)).json)[0]
    told = [choices_of(chunk)[0] for chunk in chunks(await call(app, "POST", CHATS, CHAT | {"stream": True}))]
    assert why(told[-1]) == DETECTED
    assert all(why(choice) == {"finish_reason": None} for choice in told[:-1])
    said = "".join(cast("dict[str, str]", choice["delta"]).get("content", "") for choice in told)
    assert said.startswith("I do not know what to say. I do not")
    assert said == cast("Json", whole["message"])["content"]


async def test_completions_say_so_too(app: Quart) -> None:
    (choice,) = choices_of((await call(app, "POST", COMPLETIONS, PROMPT)).json)
    last = chunks(await call(app, "POST", COMPLETIONS, PROMPT | {"stream": True}))[-1]
    assert why(choice) == why(choices_of(last)[0]) == DETECTED


async def test_each_choice_is_looked_at_for_itself(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("Hello world.", LOOP)
    first, second = choices_of((await call(app, "POST", CHATS, CHAT | {"n": 2})).json)
    assert (why(first), why(second)) == ({"finish_reason": "stop"}, DETECTED)
    assert cast("Json", first["message"])["content"] == "Hello world."


async def test_thinking_that_goes_round_in_circles_is_ended(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    desk.script = says(f"<think>{LOOP}</think>Hello")
    app = make_app(desk, fresh_codec, anyio_backend, reasoning_parser="deepseek_r1")
    (choice,) = choices_of((await call(app, "POST", CHATS, CHAT)).json)
    assert why(choice) == DETECTED
    assert cast("Json", choice["message"])["content"] == ""


async def test_a_scored_prompt_gets_all_the_tokens_it_asks_for(app: Quart) -> None:
    (choice,) = choices_of((await call(app, "POST", COMPLETIONS, PROMPT | {"echo": True, "logprobs": 0})).json)
    assert (why(choice), choice["text"]) == ({"finish_reason": "stop"}, "Hi" + LOOP)


@pytest.mark.parametrize("route", [CHATS, COMPLETIONS])
@pytest.mark.parametrize("trust", [{"api_key": "k3y"}, {"trust_requests_when_auth_disabled": True}])
async def test_who_is_trusted_may_choose(
    route: str, trust: Json, desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    desk.script = says(SHORT_LOOP)
    app = make_app(desk, fresh_codec, anyio_backend, **trust)
    body = CHAT if route == CHATS else PROMPT
    key = {"Authorization": "Bearer k3y"}
    for policy, ended in (({}, False), ({"repetition_policy_override": "strict"}, True)):
        (choice,) = choices_of((await call(app, "POST", route, body | policy, headers=key)).json)
        assert ("stop_reason" in choice) is ended


async def test_the_operators_own_choice_is_the_default(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    desk.script = says(SHORT_LOOP)
    app = make_app(desk, fresh_codec, anyio_backend, repetition_policy="strict", trust_requests_when_auth_disabled=True)
    for policy, ended in (({}, True), ({"repetition_policy_override": "safe"}, False)):
        (choice,) = choices_of((await call(app, "POST", CHATS, CHAT | policy)).json)
        assert ("stop_reason" in choice) is ended


async def test_what_a_grammar_makes_a_reply_repeat_is_not_for_strict_to_end(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    desk.script = says(SHORT_LOOP)
    app = make_app(desk, fresh_codec, anyio_backend, repetition_policy="strict")
    forms: tuple[Json, ...] = ({}, {"response_format": {"type": "json_object"}})
    ended = ["stop_reason" in choices_of((await call(app, "POST", CHATS, CHAT | form)).json)[0] for form in forms]
    assert ended == [True, False]


@pytest.mark.parametrize(("route", "body"), [(CHATS, CHAT), (COMPLETIONS, PROMPT)])
async def test_whom_the_server_cannot_know_it_does_not_trust(
    route: str, body: Json, app: Quart, desk: FakeDesk
) -> None:
    reply = await call(app, "POST", route, body | {"repetition_policy_override": "safe", "stream": True})
    assert (reply.status, reply.error["param"]) == (400, "repetition_policy_override")
    assert "--trust-requests-when-auth-disabled" in str(reply.error["message"])
    assert desk.admitted == []


@pytest.mark.parametrize("policy", ["off", "Strict", 1, True, ["safe"]])
async def test_there_are_two_policies(policy: object, app: Quart) -> None:
    reply = await call(app, "POST", CHATS, CHAT | {"repetition_policy_override": policy})
    assert (reply.status, reply.error["param"]) == (400, "repetition_policy_override")


async def test_other_dialects_have_a_field_of_its_own_for_it(app: Quart) -> None:
    message = {"model": "default", "max_tokens": 200, "messages": [{"role": "user", "content": "Hi"}]}
    whole = (await call(app, "POST", "/v1/messages", message)).json
    assert (whole["stop_reason"], whole["repetition_detected"]) == ("end_turn", "phrase_loop")
    streamed = (await call(app, "POST", "/v1/messages", message | {"stream": True})).body
    assert b'"stop_reason":"end_turn","stop_sequence":null,"repetition_detected":"phrase_loop"}' in streamed
    response = (await call(app, "POST", "/v1/responses", {"input": "Hi"})).json
    assert (response["status"], response["repetition_detected"]) == ("completed", "phrase_loop")


async def test_other_dialects_do_not_say_it_of_other_ends(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("Hello world.")
    message = {"model": "default", "max_tokens": 200, "messages": [{"role": "user", "content": "Hi"}]}
    assert "repetition_detected" not in (await call(app, "POST", "/v1/messages", message)).json
    assert "repetition_detected" not in (await call(app, "POST", "/v1/responses", {"input": "Hi"})).json


async def test_it_is_counted(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, enable_metrics=True)
    await call(app, "POST", CHATS, CHAT | {"n": 2})
    metrics = (await call(app, "GET", "/metrics")).body.decode()
    assert 'troupe_request_repetition_stops_total{policy="safe",trigger="phrase_loop"} 2.0' in metrics


async def test_the_capabilities_say_what_happens(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> None:
    for settings, default, may_choose in (
        ({}, "safe", False),
        ({"repetition_policy": "strict", "api_key": "k3y"}, "strict", True),
        ({"trust_requests_when_auth_disabled": True}, "safe", True),
    ):
        app = make_app(desk, fresh_codec, anyio_backend, **settings)
        reply = await call(app, "GET", "/v1/capabilities", headers={"x-api-key": "k3y"})
        assert cast("Json", reply.json["policies"])["repetition"] == {
            "default_mode": default,
            "supported_modes": ["safe", "strict"],
            "request_override": may_choose,
        }
