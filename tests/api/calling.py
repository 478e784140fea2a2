"""Calls the application the way a server does, in memory and on either event loop.

Quart's own test client is not used: on trio it holds no more than ten chunks, and a longer stream hangs.
"""

from dataclasses import dataclass, field
from typing import cast
from urllib.parse import quote

import anyio
import orjson
from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, HTTPScope
from quart import Quart


@dataclass
class Reply:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False

    @property
    def json(self) -> dict[str, object]:
        return cast("dict[str, object]", orjson.loads(self.body))

    @property
    def error(self) -> dict[str, str | None]:
        """What is in the error envelope, which has four members and nothing beside it."""
        assert list(self.json) == ["error"], self.body
        error = cast("dict[str, str | None]", self.json["error"])
        assert list(error) == ["message", "type", "param", "code"]
        return error


async def call(
    app: Quart,
    method: str,
    path: str,
    body: object = b"",
    *,
    headers: dict[str, str] | None = None,
    content_type: str = "application/json",
    unfinished: bool = False,
    leaving: anyio.Event | None = None,
    address: str = "127.0.0.1",
) -> Reply:
    """One call; `body` is bytes or something to write as JSON, and goes on if it is `unfinished`. The client leaves
    when `leaving` is set."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(raw)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in (headers or {}).items()),
        ],
        "client": (address, 1),
        "server": ("127.0.0.1", 8000),
        "extensions": {},
        "state": {},
    }
    incoming = [{"type": "http.request", "body": raw, "more_body": unfinished}]
    reply = Reply()

    async def receive() -> ASGIReceiveEvent:
        if incoming:
            return cast("ASGIReceiveEvent", incoming.pop())
        await (leaving or anyio.Event()).wait()
        return cast("ASGIReceiveEvent", {"type": "http.disconnect"})

    async def send(event: ASGISendEvent) -> None:
        if event["type"] == "http.response.start":
            reply.status = event["status"]
            reply.headers = {name.decode().lower(): value.decode() for name, value in event["headers"]}
        elif event["type"] == "http.response.body":
            reply.body += event["body"]
            reply.complete = not event["more_body"]

    with anyio.fail_after(20):
        await app(cast("HTTPScope", scope), receive, send)
    return reply
