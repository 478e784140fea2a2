"""One HTTP call from its first byte to its last: whatever becomes of it, its exchange is left and it is logged."""

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

import anyio
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)
from quart import request

from api.exchange import Exchange
from runtime.log import current_request

log = logging.getLogger("troupe.access")

CLIENT_LEFT = 499
"""What the log says of a call whose reply was not sent to its end (nginx's number)."""

NO_WEBSOCKETS = 1000
"""The code of a refusal; before the handshake a server makes it a 403."""

LAST_SEND_S = 5.0
"""How long the last bytes of a reply may take once nobody waits for them any more."""

UPLOAD_S = 30.0
"""How long a reply waits for a body that nobody wants to be all there."""

METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})
"""Those that series and spans name."""

LONGEST_PATH = 200
"""Characters of a path that the log repeats."""

SHOWN = {
    "first_byte_s": "first",
    "queue_s": "queue",
    "prefill_s": "prefill",
    "decode_s": "decode",
    "prompt_tokens": "prompt",
    "cached_tokens": "cached",
    "completion_tokens": "completion",
    "error": "error",
}
"""What a line of text tells behind its status and duration, and by what name."""


@dataclass(slots=True)
class Call:
    """What is remembered of a call while it lasts."""

    method: str
    path: str
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    route: str | None = None
    """The template of the route that took it, such as /v1/models/<path:model_id>; None if none did."""
    headers: Iterable[tuple[bytes, bytes]] = ()
    """The request's; keys are among them."""
    exchange: Exchange | None = None
    """Set by the route, if it asks for tokens."""
    model: str | None = None
    """What that asked for, in the client's words."""
    started_at: float = field(default_factory=time.monotonic)
    received_bytes: int = 0
    """Of the request's body, so far."""
    uploaded: anyio.Event = field(default_factory=anyio.Event)
    """Set when the last byte of the request is there."""
    first_body_at: float | None = None
    status: int = CLIENT_LEFT
    complete: bool = False
    """Whether the last byte of the reply was handed to the server."""

    @property
    def outcome(self) -> int:
        """The status, or 499 where the client did not wait for all of the reply."""
        return self.status if self.complete else CLIENT_LEFT

    @property
    def lasted_s(self) -> float:
        """From its arrival until now."""
        return time.monotonic() - self.started_at

    @property
    def first_byte_s(self) -> float | None:
        """From arrival to the first byte of the reply's body; None if there was none."""
        return self.first_body_at - self.started_at if self.first_body_at else None

    @property
    def failure(self) -> str | None:
        """The code of the error that the house ended it with: the status of a stream is sent before it fails."""
        times = self.exchange.times.values() if self.exchange else ()
        return next((each.failure for each in times if each.failure), None)


current_call: ContextVar[Call] = ContextVar("current_call")
"""The call that the running task works for."""


def note_route() -> None:
    """Quart's hook before every request: the one place that knows the route."""
    current_call.get().route = request.url_rule.rule if request.url_rule else None


class CallKeeper:
    """Goes around the ASGI application, because only there a call's end is seen for certain.

    Quart cancels a handler when its client leaves, but it does not say so to what the handler left behind: a
    response whose body was never started runs no `finally` of its own.
    """

    def __init__(self, app: ASGIFramework, observers: Sequence[Callable[[Call], None]] = ()) -> None:
        self._app = app
        self._observers = (_log, *observers)
        """Each is told of every call at its end."""

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": NO_WEBSOCKETS, "reason": None})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = Call(scope["method"], scope["path"], headers=scope["headers"])
        current_call.set(call)
        current_request.set(call.id)
        try:
            await self._app(scope, _watched_receive(call, receive), _watched_send(call, send))
        except Exception:
            call.status, call.complete = 500, True
            raise
        finally:
            if call.exchange:
                call.exchange.leave()
            for observe in self._observers:
                observe(call)


def _watched_receive(call: Call, receive: ASGIReceiveCallable) -> ASGIReceiveCallable:
    """`receive`, noting how much comes and when the request is complete."""

    async def watched() -> ASGIReceiveEvent:
        event = await receive()
        if event["type"] == "http.request":
            call.received_bytes += len(event["body"])
        if event["type"] != "http.request" or not event["more_body"]:
            call.uploaded.set()
        return event

    return watched


def _watched_send(call: Call, send: ASGISendCallable) -> ASGISendCallable:
    """`send`, noting what is sent; the reply's headers get the call's id."""

    async def watched(event: ASGISendEvent) -> None:
        if event["type"] == "http.response.start":
            call.status = event["status"]
            event["headers"] = [*event["headers"], (b"x-request-id", call.id.encode()), *await _end_of_upload(call)]
        if event["type"] == "http.response.body":
            call.first_body_at = call.first_body_at or time.monotonic()
            if not event["more_body"]:
                await _send_last(call, send, event)
                return
        await send(event)

    return watched


async def _end_of_upload(call: Call) -> list[tuple[bytes, bytes]]:
    """Wait until the request is all there; return the headers that follow if it never is.

    A reply that is sent into an upload, as for a body that is too large, is lost on most clients: they find the
    connection reset, or wait on it for ever.
    """
    with anyio.move_on_after(UPLOAD_S):
        await call.uploaded.wait()
        return []
    return [(b"connection", b"close")]


async def _send_last(call: Call, send: ASGISendCallable, event: ASGISendEvent) -> None:
    # Hypercorn 0.18 tells the application of the end while it still ends the connection. On trio Quart then cancels
    # this very call, and a connection that should be closed stays open for ever.
    with anyio.move_on_after(LAST_SEND_S, shield=True):
        await send(event)
        call.complete = True


def _log(call: Call) -> None:
    """One line, without content and without keys."""
    line = f"{call.id} {call.method} {call.path[:LONGEST_PATH]!a} {call.outcome} {call.lasted_s:.3f}s"
    fields = {name: value for name, value in _fields(call).items() if value is not None}
    shown = [f" {name}={_shown(fields[key])}" for key, name in SHOWN.items() if key in fields]
    log.info("%s", line + "".join(shown), extra=fields)


def _shown(value: object) -> str:
    return f"{value:.3f}s" if isinstance(value, float) else str(value)


def _fields(call: Call) -> dict[str, object]:
    """What is known of a call that has ended; times are those of its first choice."""
    fields: dict[str, object] = {
        "request_id": call.id,
        "method": call.method,
        "path": call.path[:LONGEST_PATH],
        "route": call.route,
        "status": call.outcome,
        "duration_s": round(call.lasted_s, 6),
        "first_byte_s": None if call.first_byte_s is None else round(call.first_byte_s, 6),
        "error": call.failure,
    }
    if call.exchange:
        cost = call.exchange.cost
        fields |= {"prompt_tokens": cost.prompt_tokens, "cached_tokens": cost.cached_tokens}
        fields["completion_tokens"] = cost.completion_tokens
        first = next(iter(call.exchange.times.values()))
        fields |= {f"{phase}_s": round(seconds, 6) for phase, seconds in first.seconds.items()}
    return fields
