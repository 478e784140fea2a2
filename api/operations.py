"""For those who run the server: health, totals, the line, the actors' own state, and a way to end a request."""

from collections.abc import AsyncGenerator

import anyio
import orjson
from quart import Blueprint, Response, current_app, request

from actors.snapshots import HouseSnapshot
from api import sse
from api.capabilities import capabilities
from api.context import ApiContext
from api.errors import ApiError, bad_request
from api.status import health, queue_stats, status
from runtime.types import CancelCause, RequestId

SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 0.05, 60.0


def operation_routes(context: ApiContext) -> Blueprint:
    """How the house is doing."""
    routes = Blueprint("operations", __name__)
    desk = context.desk

    @routes.get("/health")
    async def show_health() -> Response:
        house = desk.snapshot()
        state = health(house)
        body = {"status": state, "model": context.model_id, "uptime_s": round(house.uptime_s, 3)}
        return _json(body) if state == "ok" else _json(body, 503, {"Retry-After": "1"})

    @routes.get("/v1/status")
    async def show_status() -> Response:
        return _json(status(desk.snapshot(), context.settings, context.model_id))

    @routes.get("/v1/queue/stats")
    async def show_queue() -> Response:
        return _json({"status": "ok", "queue_stats": queue_stats(desk.snapshot(), context.settings)})

    @routes.get("/v1/capabilities")
    async def show_capabilities() -> Response:
        return _json(capabilities(context.settings, context.model_id, context.facts()))

    @routes.get("/v1/actors")
    async def show_actors() -> Response:
        stream, interval_s = (
            _streamed(request.args.get("stream", "false")),
            _interval_s(request.args.get("interval", "1")),
        )
        if not stream or request.method == "HEAD":
            return _json(_fragment(desk.snapshot()))
        return sse.stream(_snapshots(context, interval_s))

    @routes.delete("/v1/requests/<request_id>")
    async def end_request(request_id: str) -> Response:
        admitter = desk.snapshot().admitter
        if admitter is None or request_id not in admitter.open_requests:
            message = f"No request {request_id[:100]!r} is open."
            raise ApiError(404, message, param="request_id", code="request_not_found")
        desk.cancel(RequestId(request_id), CancelCause.OPERATOR)
        return _json({"id": request_id, "object": "request.cancelled", "cancelled": True})

    return routes


def _streamed(text: str) -> bool:
    if text not in ("true", "false"):
        raise bad_request('stream: must be "true" or "false".', param="stream")
    return text == "true"


def _interval_s(text: str) -> float:
    try:
        interval_s = float(text)
    except ValueError:
        interval_s = float("nan")
    if not SHORTEST_INTERVAL_S <= interval_s <= LONGEST_INTERVAL_S:
        raise bad_request(
            f"interval: must be {SHORTEST_INTERVAL_S:g} to {LONGEST_INTERVAL_S:g} seconds.", param="interval"
        )
    return interval_s


async def _snapshots(context: ApiContext, interval_s: float) -> AsyncGenerator[bytes]:
    """A snapshot every `interval_s`, until the house drains: a watcher must not keep the server from closing."""
    while True:
        house = context.desk.snapshot()
        yield sse.frame(_fragment(house))
        if health(house) == "draining":
            return
        await anyio.sleep(interval_s)


def _fragment(house: HouseSnapshot) -> orjson.Fragment:
    """The snapshot in JSON; some of its dicts have words of an enum for keys, which orjson only writes when told to."""
    return orjson.Fragment(orjson.dumps(house, option=orjson.OPT_NON_STR_KEYS))


def _json(body: object, code: int = 200, headers: dict[str, str] | None = None) -> Response:
    return current_app.response_class(orjson.dumps(body), code, headers, mimetype="application/json")
