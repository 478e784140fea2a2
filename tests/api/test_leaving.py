"""A client that leaves, in whatever phase and however it asked: the desk hears of it at once, and the log says 499."""

import contextlib
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import orjson
import pytest
from anyio.abc import SocketStream
from quart import Quart

from actors import messages as m
from runtime.types import CancelCause
from tests.api.calling import Reply, call
from tests.api.fakes import CHAT, PROMPT, FakeDesk, begins, served

pytestmark = pytest.mark.anyio

ROUTE = "/v1/chat/completions"


def nothing(_request: m.Request) -> list[m.Reply]:
    """A request that waits in line."""
    return []


PHASES = [
    pytest.param(nothing, id="waiting"),
    pytest.param(lambda request: [m.PrefillAdvanced(request.request_id, 1, 9)], id="prefill"),
    pytest.param(begins("Hello"), id="decode"),
]


def request_bytes(path: str, body: object, *headers: str) -> bytes:
    raw = orjson.dumps(body)
    head = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(raw)}"]
    return "\r\n".join([*head, *headers, "", ""]).encode() + raw


@asynccontextmanager
async def connected(app: Quart) -> AsyncIterator[SocketStream]:
    async with served(app) as port, await anyio.connect_tcp("127.0.0.1", port) as connection:
        yield connection


@pytest.mark.parametrize("script", PHASES)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_closed_connection_cancels_every_request_of_the_call(
    app: Quart, desk: FakeDesk, stream: bool, script: object
) -> None:
    desk.script = script  # type: ignore[assignment]
    async with connected(app) as connection:
        await connection.send(request_bytes(ROUTE, CHAT | {"stream": stream, "n": 2}))
        await desk.until(lambda desk: len(desk.admitted) == 2)
        if stream:
            assert (await connection.receive()).startswith(b"HTTP/1.1 200")
        await connection.aclose()
        await desk.until(lambda desk: len(desk.cancelled) == 2)
    assert desk.causes == [CancelCause.CLIENT_LEFT] * 2
    assert [id for id, _ in desk.cancelled] == [request.request_id for request in desk.admitted]


async def test_a_call_that_was_answered_cancels_nothing(app: Quart, desk: FakeDesk) -> None:
    for stream in (True, False):
        await call(app, "POST", ROUTE, CHAT | {"stream": stream})
    assert desk.cancelled == []


async def test_a_client_that_leaves_before_the_first_byte_of_its_stream_is_seen(app: Quart, desk: FakeDesk) -> None:
    """The body of such a response is never started, so that no `finally` of its own could see it."""
    leaving = anyio.Event()

    def leave(_request: m.Request) -> list[m.Reply]:
        leaving.set()
        return []

    desk.script = leave
    reply = await call(app, "POST", ROUTE, CHAT | {"stream": True}, leaving=leaving)
    assert not reply.complete
    assert desk.causes == [CancelCause.CLIENT_LEFT]


async def test_a_server_that_is_stopped_at_once_cancels_what_is_open(app: Quart, desk: FakeDesk) -> None:
    desk.script = begins("Hello")
    async with anyio.create_task_group() as group:
        group.start_soon(call, app, "POST", ROUTE, CHAT | {"stream": True})
        await desk.until(lambda desk: desk.admitted)
        group.cancel_scope.cancel()
    assert desk.causes == [CancelCause.CLIENT_LEFT]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_log_has_one_line_per_call_with_its_costs_and_without_its_content(
    app: Quart, desk: FakeDesk, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "troupe.access")
    reply = await call(
        app, "POST", "/v1/completions", PROMPT | {"stream": stream}, headers={"Authorization": "Bearer k3y"}
    )
    (line,) = [record.getMessage() for record in caplog.records if record.name == "troupe.access"]
    pattern = (
        r"(\w{24}) POST '/v1/completions' 200 \d\.\d{3}s first=\d\.\d{3}s decode=\d\.\d{3}s"
        r" prompt=(\d+) cached=0 completion=8"
    )
    matched = re.fullmatch(pattern, line)
    assert matched
    assert matched[1] == reply.headers["x-request-id"]
    assert int(matched[2]) == len(desk.admitted[0].prompt_ids)
    assert "k3y" not in caplog.text
    assert "Once" not in caplog.text


async def test_the_log_says_499_of_a_client_that_left(
    app: Quart, desk: FakeDesk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "troupe.access")
    desk.script = begins("Hello")
    leaving = anyio.Event()
    replies: list[Reply] = []

    async def client() -> None:
        replies.append(await call(app, "POST", ROUTE, CHAT | {"stream": True}, leaving=leaving))

    async with anyio.create_task_group() as group:
        group.start_soon(client)
        await desk.until(lambda desk: desk.admitted)
        leaving.set()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "troupe.access"]
    assert " 499 " in line


@pytest.mark.parametrize("stream", [True, False])
async def test_a_connection_that_is_to_be_closed_is_closed_and_its_call_is_complete(
    app: Quart, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "troupe.access")
    received = b""
    async with connected(app) as connection:
        await connection.send(request_bytes(ROUTE, CHAT | {"stream": stream}, "Connection: close"))
        with anyio.fail_after(10), contextlib.suppress(anyio.EndOfStream):
            while True:
                received += await connection.receive()
    assert b'"finish_reason":"stop"' in received
    (line,) = [record.getMessage() for record in caplog.records if record.name == "troupe.access"]
    assert " 200 " in line


async def test_a_path_cannot_forge_a_line_of_the_log(app: Quart, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "troupe.access")
    await call(app, "GET", "/x\nforged 200")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "troupe.access"]
    assert "\n" not in line
