"""What goes wrong and what a client is told: one error type, and one table for everything else that can happen.

Envelope and types are OpenAI's: {"error": {"message", "type", "param", "code"}}; on Anthropic's routes they are
Anthropic's: {"type": "error", "error": {"type", "message"}}.
"""

import logging
import math

import orjson
from quart import Response, current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from actors.messages import Cancelled, Failed, Rejected
from runtime.errors import TroupeError
from runtime.types import CancelCause, RejectReason

log = logging.getLogger("troupe.api")

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By https://docs.anthropic.com/en/api/errors; other statuses are the client's doing or the server's."""

_REJECTED = {
    RejectReason.QUEUE_FULL: (429, "Too many requests. Service is at capacity."),
    RejectReason.DRAINING: (503, "The server is shutting down and takes no new requests."),
    RejectReason.MEMORY_PRESSURE: (503, "The machine is short of memory; try again later."),
}

_CANCELLED = {
    CancelCause.CLIENT_LEFT: (499, "The client left."),
    CancelCause.STOP_STRING: (500, "The request was stopped, but not by its own stop strings."),
    CancelCause.DEADLINE: (504, "Request processing timed out after {timeout_s:g} seconds"),
    CancelCause.STALLED: (504, "The client read nothing for too long."),
    CancelCause.SHUTDOWN: (503, "The server shut down before the request ended."),
    CancelCause.OPERATOR: (503, "Whoever runs the server ended the request."),
}

_HTTP = {
    404: "There is no such route.",
    405: "This route does not take that method.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
}


class ApiError(TroupeError):
    """Something a client is told, with the status and the headers it is told with."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or {}

    @property
    def type(self) -> str:
        """The kind of error, a function of the status."""
        return _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def envelope(self) -> dict[str, dict[str, str | None]]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def anthropic_envelope(self) -> dict[str, object]:
        """The same in Anthropic's words."""
        kind = _ANTHROPIC_TYPES.get(self.status, "api_error" if self.status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": self.message}}


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """A 400; `param` is the path of the field at fault, such as `messages.0.content`."""
    return ApiError(400, message, param=param, code=code)


def of_last_word(word: Cancelled | Failed | Rejected, *, timeout_s: float) -> ApiError:
    """What a client is told when its request, which had `timeout_s`, did not finish.

    No room, no time left and a failed engine are told in the words of mlx-server-OAI-compat, which scripts look for.
    """
    match word:
        case Rejected(reason=reason, retry_after_s=seconds):
            status, message = _REJECTED[reason]
            return ApiError(status, message, code=reason.value, headers=_retry_after(seconds))
        case Cancelled(cause=cause):
            status, message = _CANCELLED[cause]
            headers = _retry_after(1) if status == 503 else None
            if cause is CancelCause.OPERATOR:
                headers = {"X-Should-Retry": "false"}  # Else OpenAI's and Anthropic's libraries ask again at once.
            return ApiError(status, message.format(timeout_s=timeout_s), code=cause.value, headers=headers)
        case Failed(error=error, refused=True):
            return ApiError(400, f"The answer cannot be given this form: {error}.", code="form_not_possible")
        case Failed():
            # The engine's own words may hold paths and addresses; they are in the log.
            return ApiError(500, "Failed to generate response: the engine failed this request.", code="engine_failed")


def of_exception(error: Exception) -> ApiError:
    """What a client is told of `error`; one that nobody raised on purpose is logged with its traceback."""
    match error:
        case ApiError():
            return error
        case MethodNotAllowed(valid_methods=methods):
            return ApiError(405, _HTTP[405], headers={"Allow": ", ".join(sorted(methods or ()))})
        case HTTPException(code=int(status)) if status < 500:
            return ApiError(status, _HTTP.get(status, error.name + "."))
        case _:
            log.error("a route failed", exc_info=error)
            return ApiError(500, "The server failed this request.", code="internal_error")


async def respond(error: Exception) -> Response:
    """Quart's error handler for everything: the envelope, never a page and never a traceback."""
    problem = of_exception(error)
    body = orjson.dumps(problem.anthropic_envelope() if speaks_anthropic(request.path) else problem.envelope())
    return current_app.response_class(body, problem.status, problem.headers, mimetype="application/json")


def speaks_anthropic(path: str) -> bool:
    """Whether the clients of this path are Anthropic's."""
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
