"""From the bytes of a call to a checked body, or to the one line that says what is wrong with them."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import orjson
from anyio.to_thread import run_sync
from pydantic import ValidationError
from quart import request

from api.call import current_call
from api.errors import ApiError, bad_request
from api.schema.base import Body, too_deep

LONGEST_NAME = 100
"""Characters of a field's name that an error repeats."""

LARGE_BODY = 1 << 15
"""Bytes from which on a body is worked on in a worker thread: reading it takes milliseconds then, and up to seconds."""

B = TypeVar("B", bound=Body)
T = TypeVar("T")


async def read_body(kind: type[B]) -> B:
    """The body of the call under way.

    Raises:
        ApiError: 415 if it is not JSON by its content type, 400 if it is not JSON, or not a `kind`.
        werkzeug.exceptions.HTTPException: 413 if it is too large, 408 if it does not come.
    """
    if request.mimetype and request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise ApiError(415, "The body must be JSON: send it with `Content-Type: application/json`.")
    raw = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    return await unhurried(partial(parse, kind, raw))


async def unhurried(work: Callable[[], T]) -> T:
    """What `work` makes out of the body of the call under way, without holding the event loop up if it is large."""
    if current_call.get().received_bytes < LARGE_BODY:
        return work()
    return await run_sync(work)


def parse(kind: type[B], raw: bytes) -> B:
    """Make a `kind` out of the bytes of a JSON object; see `read_body` for what it raises."""
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(data, dict):
        raise bad_request("The body must be a JSON object.")
    if too_deep(data):
        raise bad_request("The body is nested too deeply.", code="invalid_json")
    return translated(partial(kind.model_validate, data))


def translated(make: Callable[[], T]) -> T:
    """What `make` makes out of a body that has been read. Raises ApiError, a 400, if that is not valid."""
    try:
        return make()
    except ValidationError as error:
        raise _one_line(error) from None


def _one_line(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_input=False)[0]
    path = [str(part) for part in first["loc"]]
    if below := first.get("ctx", {}).get("at"):
        path.append(below[:LONGEST_NAME])
    param = ".".join(path)
    return bad_request(f"{param}: {first['msg']}", param=param)
