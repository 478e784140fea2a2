"""Streams over a real connection: kept alive in silence, never cut by a timeout, and losing nothing meanwhile."""

import anyio
import orjson
import pytest
from quart import Quart

from actors import messages as m
from api import sse
from api.call import CallKeeper
from runtime.types import FinishReason, TokenOutput
from tests.api.calling import call
from tests.api.fakes import CHAT, FakeDesk, begins, ids_of, served
from tests.api.test_leaving import ROUTE, request_bytes

pytestmark = pytest.mark.anyio


async def test_a_silent_stream_is_kept_alive_past_every_timeout_and_loses_nothing(
    app: Quart, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.02)
    app.config["RESPONSE_TIMEOUT"] = 0.01
    desk.script = begins("Hello")
    async with served(app) as port, await anyio.connect_tcp("127.0.0.1", port) as connection:
        await connection.send(request_bytes(ROUTE, CHAT | {"stream": True}))
        received = b""
        with anyio.fail_after(10):
            while received.count(sse.HEARTBEAT) < 3:
                received += await connection.receive()
            (request,) = desk.admitted
            rest = tuple(map(TokenOutput, ids_of(" world.")))
            request.sink.last_word(m.Finished(request.request_id, rest, FinishReason.STOP, m.Usage(1, 0, 1)))
            while b"[DONE]" not in received:
                received += await connection.receive()
    assert b'"content":" world."' in received


async def test_one_event_is_one_line_of_json_behind_its_name() -> None:
    frame = sse.frame({"text": "two\nlines"})
    assert frame == b'data: {"text":"two\\nlines"}\n\n'
    assert orjson.loads(frame.removeprefix(b"data: ")) == {"text": "two\nlines"}


async def test_a_reply_waits_until_its_request_is_all_there() -> None:
    """Whoever gets a 413 or 401 into an upload sees a reset connection in its place."""
    order: list[str] = []
    parts = [True, True, False]

    async def receive() -> dict[str, object]:
        order.append("part")
        return {"type": "http.request", "body": b"x", "more_body": parts[len(order) - 1]}

    async def send(event: dict[str, object]) -> None:
        order.append(str(event["type"]))

    async def hasty_app(_scope: object, receive: object, send: object) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(send, {"type": "http.response.start", "status": 413, "headers": []})  # type: ignore[arg-type]
            for _ in parts:
                await receive()  # type: ignore[operator]

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await CallKeeper(hasty_app)(scope, receive, send)  # type: ignore[arg-type]
    assert order == ["part", "part", "part", "http.response.start"]


async def test_a_reply_does_not_wait_for_ever_for_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.call.UPLOAD_S", 0.01)
    sent: list[dict[str, object]] = []

    async def send(event: dict[str, object]) -> None:
        sent.append(event)

    async def hasty_app(_scope: object, _receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})  # type: ignore[operator]

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await CallKeeper(hasty_app)(scope, None, send)  # type: ignore[arg-type]
    assert (b"connection", b"close") in sent[0]["headers"]  # type: ignore[operator]


async def test_a_reply_is_told_apart_by_its_id(app: Quart) -> None:
    first, second = [await call(app, "GET", "/health") for _ in range(2)]
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
