"""POST /v1/messages and its count: what reaches the desk, and what a client reads, also if all goes wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quart import Quart

from actors import messages as m
from api import sse
from api.text.codec import HfCodec
from runtime.types import CancelCause, FinishReason, RejectReason, RequestId
from tests.api.calling import Reply, call
from tests.api.fakes import API_FACTS, FakeDesk, begins, cancelled_by, ends_with, ids_of, make_app, says

pytestmark = pytest.mark.anyio

ROUTE, COUNT = "/v1/messages", "/v1/messages/count_tokens"
Json = dict[str, object]
HI: Json = {"model": "default", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi there"}]}
LARGE = replace(API_FACTS, context_tokens=65_536)
TOOL: Json = {"name": "f", "description": "Does it.", "input_schema": {"type": "object"}}


def told(reply: Reply) -> list[Json]:
    """The events of a stream; each is named as its data is typed."""
    events = []
    for block in reply.body.removesuffix(b"\n\n").split(b"\n\n"):
        name, data = block.split(b"\n")
        events.append(orjson.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + events[-1]["type"].encode()
    return events


def error_of(reply: Reply) -> Json:
    """What is in Anthropic's envelope, which has nothing beside it."""
    assert list(reply.json) == ["type", "error"], reply.body
    assert reply.json["type"] == "error"
    error = cast("Json", reply.json["error"])
    assert list(error) == ["type", "message"]
    return error


async def test_a_whole_reply_is_a_message(app: Quart, desk: FakeDesk) -> None:
    reply = await call(app, "POST", ROUTE, HI)
    body = reply.json
    assert reply.status == 200
    assert cast("str", body.pop("id")) == f"msg_{reply.headers['request-id']}"
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "tiny/llama",
        "content": [{"type": "text", "text": "Hello world."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(desk.admitted[0].prompt_ids),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": len(ids_of("Hello world.")) + 1,
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }


async def test_a_stream_tells_the_same_message_event_by_event(app: Quart, desk: FakeDesk) -> None:
    whole = (await call(app, "POST", ROUTE, HI)).json
    reply = await call(app, "POST", ROUTE, HI | {"stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    first, ping, begin, *deltas, end, delta, stop = told(reply)
    assert ping == {"type": "ping"}
    message = cast("Json", first["message"])
    assert message | {"id": 0} == whole | {
        "id": 0,
        "content": [],
        "stop_reason": None,
        "usage": cast("Json", whole["usage"]) | {"output_tokens": 0},
    }
    assert begin == {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    assert "".join(cast("dict[str, str]", each["delta"])["text"] for each in deltas) == "Hello world."
    assert len(deltas) > 1
    assert end == {"type": "content_block_stop", "index": 0}
    assert delta == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": whole["usage"],
    }
    assert stop == {"type": "message_stop"}


async def test_an_answer_without_text_has_no_blocks(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("")
    assert (await call(app, "POST", ROUTE, HI)).json["content"] == []
    kinds = [event["type"] for event in told(await call(app, "POST", ROUTE, HI | {"stream": True}))]
    assert kinds == ["message_start", "ping", "message_delta", "message_stop"]


async def test_silence_is_filled_with_pings(app: Quart, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    pings = 0
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.001)
    desk.script = begins("Hello")
    heartbeat = b'event: ping\ndata: {"type":"ping"}\n\n'

    def counted(writer: object) -> bytes:
        nonlocal pings
        pings += 1
        if pings == 4:
            (request,) = desk.admitted
            request.sink.last_word(m.Finished(request.request_id, (), FinishReason.STOP, m.Usage(1, 0, 1)))
        return heartbeat

    monkeypatch.setattr("api.messages_writer.MessagesWriter.heartbeat", counted)
    reply = await call(app, "POST", ROUTE, HI | {"stream": True})
    assert reply.body.count(heartbeat) == 4
    assert told(reply)[-1] == {"type": "message_stop"}


@pytest.mark.parametrize(
    ("script", "given", "reason", "sequence"),
    [
        (says("Hello"), {}, "end_turn", None),
        (says("Hello", reason=FinishReason.LENGTH), {}, "max_tokens", None),
        (says("Hello world"), {"stop_sequences": ["never", "world"]}, "stop_sequence", "world"),
    ],
)
async def test_why_it_stopped_is_said_whole_and_streamed(
    app: Quart, desk: FakeDesk, script: Callable[[m.Request], list[m.Reply]], given: Json, reason: str, sequence: object
) -> None:
    desk.script = script
    whole = (await call(app, "POST", ROUTE, HI | given)).json
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)
    *_, delta, _ = told(await call(app, "POST", ROUTE, HI | given | {"stream": True}))
    assert delta["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


async def test_what_the_client_leaves_open_is_the_operators_choice_then_the_contracts(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    for operators in ({}, {"default_temperature": 0.2, "default_top_p": 0.3}):
        app = make_app(desk, fresh_codec, anyio_backend, **operators)
        await call(app, "POST", ROUTE, HI)
        await call(app, "POST", ROUTE, HI | {"temperature": 0, "top_p": 1, "top_k": 7})
    chosen = [(each.sampling.temperature, each.sampling.top_p, each.sampling.top_k) for each in desk.admitted]
    assert chosen == [(0.7, 0.9, 0), (0, 1, 7), (0.2, 0.3, 0), (0, 1, 7)]


async def test_max_tokens_is_bounded_by_the_context(app: Quart, desk: FakeDesk) -> None:
    await call(app, "POST", ROUTE, HI | {"max_tokens": 32_000})
    (request,) = desk.admitted
    assert len(request.prompt_ids) + request.sampling.max_tokens == 256


async def test_the_conversation_reaches_the_template(app: Quart, desk: FakeDesk) -> None:
    messages = [{"role": "user", "content": "One."}, {"role": "user", "content": [{"type": "text", "text": "Two."}]}]
    assert (await call(app, "POST", ROUTE, HI | {"messages": messages, "system": "Be brief."})).status == 200
    rendered = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne.\n\nTwo.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert list(desk.admitted[0].prompt_ids) == ids_of(rendered)


async def test_a_last_message_of_the_assistant_is_continued(app: Quart, desk: FakeDesk) -> None:
    begun = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The answer is ("}]
    assert (await call(app, "POST", ROUTE, HI | {"messages": begun})).status == 200
    rendered = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nThe answer is ("
    assert list(desk.admitted[0].prompt_ids) == ids_of(rendered)


async def test_clients_of_betas_are_answered(app: Quart) -> None:
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "some-beta-2026-01-01,other-beta"}
    assert (await call(app, "POST", f"{ROUTE}?beta=true", HI, headers=headers)).status == 200
    assert (await call(app, "POST", f"{COUNT}?beta=true", HI, headers=headers)).status == 200


WORDS = st.text("ab <|im_end|>é\n", min_size=1, max_size=8)


@st.composite
def bodies(draw: st.DrawFn) -> Json:
    """Conversations with all that is counted: the assistant thinks, speaks and calls; the user answers the calls."""
    messages: list[Json] = [{"role": "user", "content": draw(WORDS)}]
    for _ in range(draw(st.integers(0, 2))):
        ids = [f"t{number}" for number in range(draw(st.integers(0, 3)))]
        said: list[Json] = [{"type": "thinking", "thinking": draw(WORDS), "signature": ""}]
        said += [{"type": "text", "text": draw(WORDS)}]
        said += [
            {"type": "tool_use", "id": id, "name": "f", "input": draw(st.dictionaries(WORDS, WORDS))} for id in ids
        ]
        answers: list[Json] = [{"type": "tool_result", "tool_use_id": id, "content": draw(WORDS)} for id in ids]
        messages += [
            {"role": "assistant", "content": said},
            {"role": "user", "content": [*answers, {"type": "text", "text": draw(WORDS)}]},
        ]
    thinking = draw(st.sampled_from(["enabled", "disabled", "adaptive"]))
    tools = draw(st.sampled_from([[], [TOOL], [TOOL, TOOL | {"name": "g"}]]))
    system = draw(st.just("") | WORDS)
    return {"model": "m", "messages": messages, "system": system, "tools": tools, "thinking": {"type": thinking}}


@pytest.fixture
def calling_app(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> Quart:
    """One that looks for calls, with room for long conversations."""
    desk.model_facts = LARGE
    return make_app(desk, fresh_codec, anyio_backend, enable_auto_tool_choice=True)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies())
async def test_the_count_is_what_the_request_then_reports(calling_app: Quart, desk: FakeDesk, body: Json) -> None:
    desk.script = says("Hello", cached_tokens=1)
    counted = await call(calling_app, "POST", COUNT, body)
    whole = await call(calling_app, "POST", ROUTE, body | {"max_tokens": 5})
    events = told(await call(calling_app, "POST", ROUTE, body | {"max_tokens": 5, "stream": True}))
    for usage in (whole.json["usage"], cast("Json", events[0]["message"])["usage"], events[-2]["usage"]):
        assert counted.json == {"input_tokens": cast("Json", usage)["input_tokens"]}
    assert counted.json == {"input_tokens": len(desk.admitted[-1].prompt_ids)}


@pytest.mark.parametrize("path", [ROUTE, COUNT])
async def test_a_wrong_key_is_a_401_and_either_header_opens(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str, path: str
) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, api_key="secret")
    for headers in ({}, {"x-api-key": "wrong"}, {"Authorization": "Bearer wrong"}):
        reply = await call(app, "POST", path, HI, headers=headers)
        assert (reply.status, error_of(reply)["type"]) == (401, "authentication_error")
        assert reply.headers["request-id"] == reply.headers["x-request-id"]
    for headers in ({"x-api-key": "secret"}, {"Authorization": "Bearer secret"}):
        assert (await call(app, "POST", path, HI, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "content_type", "status", "kind"),
    [
        ("POST", ROUTE, b"{", "application/json", 400, "invalid_request_error"),
        ("POST", ROUTE, {}, "application/json", 400, "invalid_request_error"),
        ("POST", COUNT, HI | {"colour": "red"}, "application/json", 400, "invalid_request_error"),
        ("GET", ROUTE, b"", "application/json", 405, "invalid_request_error"),
        ("POST", ROUTE, HI, "text/plain", 415, "invalid_request_error"),
        ("POST", ROUTE, b"x" * 3000, "application/json", 413, "request_too_large"),
        ("GET", f"{ROUTE}/batches", b"", "application/json", 404, "not_found_error"),
        ("POST", f"{COUNT}/", HI, "application/json", 404, "not_found_error"),
    ],
)
async def test_what_is_wrong_with_a_call_is_said_in_anthropics_envelope(
    desk: FakeDesk,
    fresh_codec: HfCodec,
    anyio_backend: str,
    method: str,
    path: str,
    body: object,
    content_type: str,
    status: int,
    kind: str,
) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, max_body_mb=0.002)
    reply = await call(app, method, path, body, content_type=content_type)
    assert (reply.status, error_of(reply)["type"]) == (status, kind)
    assert reply.headers["request-id"] == reply.headers["x-request-id"]


async def test_other_routes_have_no_request_id_of_anthropics(app: Quart) -> None:
    assert "request-id" not in (await call(app, "GET", "/v1/models")).headers


async def test_another_model_is_a_404_if_the_operator_is_strict(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, strict_model_id=True)
    for path in (ROUTE, COUNT):
        reply = await call(app, "POST", path, HI)
        assert (reply.status, error_of(reply)["type"]) == (404, "not_found_error")
        assert (await call(app, "POST", path, HI | {"model": "tiny/llama"})).status == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reason", "status", "kind"),
    [
        (RejectReason.QUEUE_FULL, 429, "rate_limit_error"),
        (RejectReason.DRAINING, 503, "overloaded_error"),
        (RejectReason.MEMORY_PRESSURE, 503, "overloaded_error"),
    ],
)
async def test_a_refusal_at_the_door_says_when_to_come_back(
    app: Quart, desk: FakeDesk, reason: RejectReason, status: int, kind: str, stream: bool
) -> None:
    desk.refusal = lambda request_id: m.Rejected(request_id, reason, retry_after_s=2.1)
    reply = await call(app, "POST", ROUTE, HI | {"stream": stream})
    assert (reply.status, error_of(reply)["type"], reply.headers["retry-after"]) == (status, kind, "3")


def failed(request_id: RequestId) -> m.Failed:
    return m.Failed(request_id, "RuntimeError: secret path")


BAD_ENDS = [
    pytest.param(cancelled_by(CancelCause.DEADLINE), 504, "timeout_error", id="deadline"),
    pytest.param(cancelled_by(CancelCause.SHUTDOWN), 503, "overloaded_error", id="shutdown"),
    pytest.param(failed, 500, "api_error", id="failed"),
]


@pytest.mark.parametrize(("last_word", "status", "kind"), BAD_ENDS)
async def test_a_bad_end_is_an_error_with_its_status_or_the_last_event(
    app: Quart, desk: FakeDesk, last_word: Callable[[RequestId], m.LastWord], status: int, kind: str
) -> None:
    desk.script = ends_with(last_word, "Hello")
    whole = await call(app, "POST", ROUTE, HI)
    assert (whole.status, error_of(whole)["type"]) == (status, kind)
    *_, delta, last = told(await call(app, "POST", ROUTE, HI | {"stream": True}))
    assert delta["type"] == "content_block_delta"
    assert last == whole.json
    assert b"secret" not in whole.body


async def test_a_model_that_is_still_loading_is_overloaded(app: Quart, desk: FakeDesk) -> None:
    desk.model_facts = None
    reply = await call(app, "POST", ROUTE, HI)
    assert (reply.status, error_of(reply)["type"], reply.headers["retry-after"]) == (503, "overloaded_error", "1")
