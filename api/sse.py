"""Server-sent events (the HTML standard's `text/event-stream`), as OpenAI's clients read them."""

from collections.abc import AsyncGenerator

import orjson
from quart import Response, current_app

HEARTBEAT_S = 15.0
"""Silence after which a comment is sent, so that no proxy takes the connection for dead."""

HEARTBEAT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def frame(payload: object) -> bytes:
    """One event that carries `payload` as JSON."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def event(name: str, payload: object) -> bytes:
    """One event with a name, as the clients of some APIs tell events apart."""
    return b"event: " + name.encode() + b"\n" + frame(payload)


def stream(frames: AsyncGenerator[bytes]) -> Response:
    """A response that sends `frames` as they come, for as long as they come."""
    response = current_app.response_class(frames, headers=_HEADERS, mimetype="text/event-stream")
    response.timeout = None  # Quart would cut it after RESPONSE_TIMEOUT.
    return response
