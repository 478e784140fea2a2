"""GET and DELETE /v1/cache: what is kept of prompts, and a way to be rid of it."""

import anyio
from quart import Blueprint

from actors.snapshots import RoomState
from api.context import ApiContext
from api.errors import ApiError
from api.status import Json, cache

SIZES = ("entries", "memory_mb", "disk_entries", "disk_mb")
"""What of the cache is told once it is cleared."""


def cache_routes(context: ApiContext) -> Blueprint:
    """The prefix cache."""
    routes = Blueprint("cache", __name__)

    def shown() -> Json:
        return cache(context.desk.snapshot(), context.settings)

    @routes.get("/v1/cache")
    async def show() -> Json:
        return shown()

    @routes.delete("/v1/cache")
    async def clear() -> Json:
        await _clear(context)
        kept = shown()
        return {"object": "cache", "cleared": kept["disk_entries"] == 0} | {name: kept[name] for name in SIZES}

    return routes


async def _clear(context: ApiContext) -> None:
    """Return once what was kept when the call came is gone, but for files that cannot be deleted. If the engine is dead
    or dies meanwhile, its successor does it, and the call waits.

    Raises:
        ApiError: 503, the first engine still loads, so what lies on disk cannot be reached; 504, it took too long.
    """
    if context.desk.snapshot().room is RoomState.LOADING:
        raise ApiError(503, "The engine is starting; try again soon.", code="loading", headers={"Retry-After": "1"})
    cleared = anyio.Event()
    context.desk.clear_cache(cleared.set)
    with anyio.move_on_after(context.settings.timeout):
        await cleared.wait()
        return
    raise ApiError(504, f"The cache was not cleared within {context.settings.timeout:g} seconds.", code="deadline")
