"""What a client is told when the house does not answer: one envelope, true statuses, no clean end after an error."""

from collections.abc import Callable

import orjson
import pytest
from quart import Quart

from actors import messages as m
from api.text.codec import HfCodec
from runtime.types import CancelCause, RejectReason, RequestId
from tests.api.calling import call
from tests.api.fakes import CHAT, PROMPT, FakeDesk, cancelled_by, ends_with, events, make_app

pytestmark = pytest.mark.anyio

ROUTE = "/v1/chat/completions"


def failed(request_id: RequestId) -> m.Failed:
    return m.Failed(request_id, "RuntimeError: secret path /home/someone")


BAD_ENDS = [
    pytest.param(cancelled_by(CancelCause.DEADLINE), 504, "deadline", id="deadline"),
    pytest.param(cancelled_by(CancelCause.STALLED), 504, "stalled", id="stalled"),
    pytest.param(cancelled_by(CancelCause.SHUTDOWN), 503, "shutdown", id="shutdown"),
    pytest.param(failed, 500, "engine_failed", id="failed"),
]


@pytest.mark.parametrize(("last_word", "status", "code"), BAD_ENDS)
async def test_a_bad_end_of_a_whole_reply_is_an_error_with_its_status(
    app: Quart, desk: FakeDesk, last_word: Callable[[RequestId], m.LastWord], status: int, code: str
) -> None:
    desk.script = ends_with(last_word, "Hello")
    reply = await call(app, "POST", ROUTE, CHAT)
    assert (reply.status, reply.error["code"], reply.error["type"]) == (status, code, "server_error")
    assert b"secret" not in reply.body


@pytest.mark.parametrize(("last_word", "status", "code"), BAD_ENDS)
async def test_a_bad_end_of_a_stream_is_an_error_event_and_no_done(
    app: Quart, desk: FakeDesk, last_word: Callable[[RequestId], m.LastWord], status: int, code: str
) -> None:
    desk.script = ends_with(last_word, "Hello")
    reply = await call(app, "POST", ROUTE, CHAT | {"stream": True, "stream_options": {"include_usage": True}})
    *before, last = events(reply.body)
    assert (reply.status, reply.complete) == (200, True)
    assert orjson.loads(last)["error"]["code"] == code
    assert b"[DONE]" not in reply.body
    assert b"secret" not in reply.body
    assert any(orjson.loads(each)["choices"][0]["delta"].get("content") for each in before)


async def test_one_choice_that_fails_ends_the_call_and_cancels_the_others(app: Quart, desk: FakeDesk) -> None:
    desk.script = lambda request: [failed(request.request_id)] if request.request_id.endswith("-1") else []
    reply = await call(app, "POST", ROUTE, CHAT | {"n": 3})
    assert reply.status == 500
    assert [(id.rpartition("-")[2], cause) for id, cause in desk.cancelled] == [
        ("0", CancelCause.CLIENT_LEFT),
        ("2", CancelCause.CLIENT_LEFT),
    ]


async def test_a_bad_end_behind_a_stop_string_changes_nothing(app: Quart, desk: FakeDesk) -> None:
    desk.script = ends_with(failed, "Hello world")
    reply = await call(app, "POST", ROUTE, CHAT | {"stop": "world"})
    assert reply.status == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reason", "status", "kind"),
    [
        (RejectReason.QUEUE_FULL, 429, "rate_limit_error"),
        (RejectReason.DRAINING, 503, "server_error"),
        (RejectReason.MEMORY_PRESSURE, 503, "server_error"),
    ],
)
async def test_a_refusal_has_its_status_and_says_when_to_come_back_streamed_or_not(
    app: Quart, desk: FakeDesk, stream: bool, reason: RejectReason, status: int, kind: str
) -> None:
    desk.refusal = lambda request_id: m.Rejected(request_id, reason, retry_after_s=2.1)
    reply = await call(app, "POST", ROUTE, CHAT | {"stream": stream, "n": 2})
    assert (reply.status, reply.error["type"], reply.error["code"]) == (status, kind, reason.value)
    assert reply.headers["retry-after"] == "3"
    assert desk.cancelled == []


async def test_scripts_that_look_for_the_words_of_another_server_find_them(
    app: Quart, desk: FakeDesk, codec: HfCodec, anyio_backend: str
) -> None:
    desk.refusal = lambda request_id: m.Rejected(request_id, RejectReason.QUEUE_FULL, retry_after_s=1)
    full = await call(app, "POST", ROUTE, CHAT)
    assert full.error["message"] == "Too many requests. Service is at capacity."
    desk.refusal = None
    desk.script = ends_with(cancelled_by(CancelCause.DEADLINE), "Hello")
    late = await call(make_app(desk, codec, anyio_backend, timeout=12.5), "POST", ROUTE, CHAT)
    assert late.error["message"] == "Request processing timed out after 12.5 seconds"
    desk.script = ends_with(failed, "Hello")
    broken = await call(app, "POST", ROUTE, CHAT)
    assert str(broken.error["message"]).startswith("Failed to generate response: ")


async def test_a_model_that_is_still_loading_is_a_503(app: Quart, desk: FakeDesk) -> None:
    desk.model_facts = None
    for route, body in (("/v1/chat/completions", CHAT), ("/v1/completions", PROMPT)):
        reply = await call(app, "POST", route, body)
        assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "loading", "1")


async def test_any_model_name_is_served_by_the_model_there_is(app: Quart) -> None:
    for name in ("default", "local-model", "tiny/llama", ""):
        reply = await call(app, "POST", ROUTE, CHAT | {"model": name})
        assert (reply.status, reply.json["model"]) == (200, "tiny/llama")


async def test_another_model_is_a_404_if_the_operator_is_strict(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, strict_model_id=True)
    reply = await call(app, "POST", ROUTE, CHAT)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "model_not_found", "model")
    assert (await call(app, "POST", ROUTE, CHAT | {"model": "tiny/llama"})).status == 200


@pytest.mark.parametrize("path", ["/x", "/v1", "/v1/chat", "/v1//models", "/v1/models/", "/static/x", "/v1/embeddings"])
async def test_an_unknown_route_is_a_404_in_the_envelope(app: Quart, path: str) -> None:
    reply = await call(app, "GET", path)
    assert (reply.status, reply.error["type"]) == (404, "invalid_request_error")


async def test_a_wrong_method_is_a_405_that_names_the_right_ones(app: Quart) -> None:
    reply = await call(app, "GET", ROUTE)
    assert (reply.status, reply.error["type"]) == (405, "invalid_request_error")
    assert "POST" in reply.headers["allow"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_is_a_500_without_a_traceback_and_the_log_has_it(
    app: Quart, desk: FakeDesk, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def script(_request: m.Request) -> list[m.Reply]:
        raise RuntimeError("secret detail")

    desk.script = script
    reply = await call(app, "POST", ROUTE, CHAT | {"stream": stream})
    assert (reply.status, reply.error["code"]) == (500, "internal_error")
    assert b"secret" not in reply.body
    assert "secret detail" in caplog.text


async def test_a_bug_in_the_middle_of_a_stream_is_an_error_event(
    app: Quart, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_self: object, _tokens: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("api.text.choice.ChoiceText.feed", broken)
    reply = await call(app, "POST", ROUTE, CHAT | {"stream": True})
    assert orjson.loads(events(reply.body)[-1])["error"]["code"] == "internal_error"
    assert b"secret" not in reply.body
    assert "secret detail" in caplog.text
