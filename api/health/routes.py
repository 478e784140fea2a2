"""GET /health/diagnostics: unlike /health it is behind the key, where one is set."""

import orjson
from quart import Blueprint, Response, current_app

from api.context import ApiContext
from api.health.report import HealthReport


def health_routes(context: ApiContext) -> Blueprint:
    """The report; its status code says nothing of what is in it."""
    routes = Blueprint("health", __name__)
    report = HealthReport(context)

    @routes.get("/health/diagnostics")
    async def show_diagnostics() -> Response:
        return current_app.response_class(orjson.dumps(await report.made()), 200, mimetype="application/json")

    return routes
