"""What nobody may do: get in without the key, read it in the log, hold the server up, or send more than it takes."""

import logging
import re

import anyio
import orjson
import pytest
from anyio.abc import SocketStream
from quart import Quart

from api.text.codec import HfCodec
from tests.api.calling import call
from tests.api.fakes import CHAT, FakeDesk, make_app, served

pytestmark = pytest.mark.anyio

KEY = "s3cret-k3y"
CHAT_ROUTE = "/v1/chat/completions"
ORIGIN = "https://chat.example"


@pytest.fixture
def locked(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> Quart:
    return make_app(desk, fresh_codec, anyio_backend, api_key=KEY, enable_metrics=True)


@pytest.fixture
def shared(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> Quart:
    return make_app(desk, fresh_codec, anyio_backend, api_key=KEY, cors_origins=[ORIGIN, "http://localhost:3000"])


# --- the key ---


async def test_no_route_but_the_open_ones_says_anything_without_the_key(locked: Quart, desk: FakeDesk) -> None:
    paths = {re.sub("<.*>", "x", rule.rule) for rule in locked.url_map.iter_rules()}
    assert {"/openapi.json", "/v1/actors", "/v1/responses/x"} <= paths
    refused = 0
    for path in paths | {"/nowhere", "/v1/", "/static/x", "/v1/models/../status"}:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"):
            reply = await call(locked, method, path, CHAT)
            is_open = path in ("/", "/health", "/metrics") and method in ("GET", "HEAD", "OPTIONS")
            assert reply.status == (200 if is_open else 401), f"{method} {path}"
            refused += reply.status == 401
    assert refused > 100
    assert desk.admitted == []


@pytest.mark.parametrize("given", [KEY, "wrong-k3y"])
async def test_a_key_is_in_no_log_wherever_it_was_put(
    locked: Quart, given: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for headers in ({"Authorization": f"Bearer {given}"}, {"x-api-key": given}):
        for path in (f"/v1/models?api_key={given}&key={given}", f"/nowhere?key={given}", f"/health?key={given}"):
            await call(locked, "GET", path, headers=headers)
        await call(locked, "POST", CHAT_ROUTE, CHAT | {"stream": True}, headers=headers)
        await call(locked, "POST", CHAT_ROUTE, b"{", headers=headers)
    assert len([record for record in caplog.records if record.name == "troupe.access"]) == 10
    assert given not in caplog.text
    assert not [record for record in caplog.records if given in str(record.__dict__)]


async def test_keys_are_compared_in_constant_time(locked: Quart, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("api.auth.hmac.compare_digest", compare)
    for given in ("", "s", KEY):
        await call(locked, "GET", "/v1/models", headers={"x-api-key": given})
    assert compared == [(given.encode(), KEY.encode()) for given in ("", "s", KEY)]


# --- pages of other origins ---


async def test_no_page_of_another_origin_may_read_a_reply_unless_it_was_named(app: Quart) -> None:
    for method in ("GET", "OPTIONS"):
        headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        reply = await call(app, method, "/v1/models", headers=headers)
        assert not [name for name in reply.headers if name.startswith("access-control")]


async def test_a_named_origin_may_ask_first_without_the_key_and_then_needs_it(shared: Quart, desk: FakeDesk) -> None:
    asks = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    preflight = await call(shared, "OPTIONS", CHAT_ROUTE, headers=asks)
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in preflight.headers
    refused = await call(shared, "POST", CHAT_ROUTE, CHAT, headers={"Origin": ORIGIN})
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
    assert desk.admitted == []
    key = {"Origin": ORIGIN, "Authorization": f"Bearer {KEY}"}
    for stream in (False, True):
        reply = await call(shared, "POST", CHAT_ROUTE, CHAT | {"stream": stream}, headers=key)
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert reply.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", ORIGIN + ".evil.example", ORIGIN + ":444", ORIGIN.upper(), "http://chat.example", "null"],
)
async def test_an_origin_that_is_not_exactly_a_named_one_is_told_nothing(shared: Quart, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = await call(shared, "OPTIONS", CHAT_ROUTE, headers=headers)
    assert preflight.status == 401
    reply = await call(shared, "GET", "/v1/models", headers=headers | {"x-api-key": KEY})
    assert reply.status == 200
    for each in (preflight, reply):
        assert not [name for name in each.headers if name.startswith("access-control")]


async def test_options_that_are_no_preflight_need_the_key(shared: Quart) -> None:
    assert (await call(shared, "OPTIONS", CHAT_ROUTE, headers={"Origin": ORIGIN})).status == 401


# --- connections ---


async def everything(stream: SocketStream) -> bytes:
    """What comes until the server closes the connection."""
    received = b""
    try:
        while True:
            received += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return received


async def test_a_head_that_comes_byte_by_byte_for_ever_is_not_waited_for(app: Quart) -> None:
    async with served(app, header_s=0.3) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        with anyio.fail_after(10), pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
            while True:
                await stream.send(b"a")
                await anyio.sleep(0.02)


async def test_neither_is_the_head_of_a_second_request(app: Quart) -> None:
    async with served(app, header_s=0.3) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nX-Slow: ")
        with anyio.fail_after(10):
            assert (await everything(stream)).count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize("lines", [1, 1000])
async def test_a_hundred_kilobytes_of_headers_are_a_431(app: Quart, lines: int) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: x\r\n" + (b"X-Long: " + b"a" * (100_000 // lines) + b"\r\n") * lines
    async with served(app) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(head)
        with anyio.fail_after(10):
            assert (await everything(stream)).startswith(b"HTTP/1.1 431")


async def test_a_websocket_is_refused_with_or_without_a_key(app: Quart, locked: Quart) -> None:
    upgrade = (
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for each in (app, locked):
        async with served(each) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(upgrade)
            with anyio.fail_after(10):
                assert (await everything(stream)).startswith(b"HTTP/1.1 403")


# --- sizes ---


def tools(number: int) -> list[object]:
    return [{"type": "function", "function": {"name": f"f{n}"}} for n in range(number)]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (CHAT | {"messages": [{"role": "user", "content": "a"}] * 10_001}, "messages"),
        (CHAT | {"tools": tools(513), "tool_choice": "none"}, "tools"),
        (CHAT | {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 10_001}]}, "content"),
        (CHAT | {"stop": ["a"] * 17}, "stop"),
        (CHAT | {"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias"),
    ],
)
async def test_lists_have_a_length_that_is_enough(
    app: Quart, desk: FakeDesk, body: dict[str, object], param: str
) -> None:
    reply = await call(app, "POST", CHAT_ROUTE, body)
    assert (reply.status, str(reply.error["param"]).rpartition(".")[2]) == (400, param)
    assert "at most" in str(reply.error["message"])
    assert desk.admitted == []


async def test_a_body_is_as_large_as_the_operator_says_and_no_larger(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, max_body_mb=0.001)
    for size, status in ((1, 200), (1500, 413)):
        assert (await call(app, "POST", CHAT_ROUTE, CHAT | {"user": "u" * size})).status == status


async def test_what_a_head_request_says_is_what_get_would(locked: Quart) -> None:
    key = {"x-api-key": KEY}
    for path in ("/health", "/v1/models", "/openapi.json"):
        head, get = [await call(locked, method, path, headers=key) for method in ("HEAD", "GET")]
        assert (head.status, head.headers["content-type"]) == (200, get.headers["content-type"])
        assert orjson.loads(get.body)
