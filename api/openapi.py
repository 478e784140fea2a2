"""GET /openapi.json: what the API is, made of the table of routes and of the bodies that check."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from quart import Blueprint

from api.routes import METRICS, ROUTES, Json, Route
from api.schema.document import BodySchema, readable
from runtime import __version__
from runtime.settings import Settings

STATUSES = {
    400: "A field, or the JSON itself, is wrong",
    401: "The key is missing or wrong",
    404: "There is no such thing",
    408: "The body did not arrive in time",
    413: "The body is too large",
    415: "The body is not JSON by its content type",
    429: "The queue is full, or the client asks too often",
    500: "The engine failed this request",
    503: "The model is loading, or the server is short of memory or shuts down",
    504: "The request did not end before its deadline",
}
COME_BACK: Json = {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}}}


def openapi_routes(settings: Settings) -> Blueprint:
    """The document of a server with these settings."""
    routes = Blueprint("openapi", __name__)
    made = document(settings)

    @routes.get("/openapi.json")
    async def show() -> Json:
        return made

    return routes


def document(settings: Settings) -> Json:
    """An OpenAPI 3.1 document (spec.openapis.org/oas/v3.1.1)."""
    routes = (*ROUTES, *((METRICS,) if settings.enable_metrics else ()))
    references, schemas = _schemas(_kinds(routes))
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = _operation(route, references, settings)
    schemes: Json = {"bearer": {"type": "http", "scheme": "bearer"}}
    schemes["key"] = {"type": "apiKey", "in": "header", "name": "x-api-key"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Troupe",
            "version": __version__,
            "description": "Members that are null are taken as absent.",
        },
        "paths": paths,
        "components": {"schemas": schemas, **({"securitySchemes": schemes} if settings.api_key else {})},
    }


def _kinds(routes: Iterable[Route]) -> tuple[tuple[type, JsonSchemaMode], ...]:
    """All bodies and replies, each with the side from which it is described."""
    modes: dict[type, JsonSchemaMode] = {}
    for route in routes:
        modes[route.envelope] = "serialization"
        modes |= {route.body: "validation"} if route.body else {}
        modes |= {route.reply: "serialization"} if route.reply else {}
    return tuple(modes.items())


@cache
def _schemas(kinds: tuple[tuple[type, JsonSchemaMode], ...]) -> tuple[dict[type, Json], Json]:
    """A reference to the schema of every body and reply, and what the references lead to."""
    references, shared = TypeAdapter.json_schemas(
        [(kind, mode, TypeAdapter(readable(kind))) for kind, mode in kinds],
        schema_generator=BodySchema,
        ref_template="#/components/schemas/{model}",
    )
    return {kind: schema for (kind, _), schema in references.items()}, shared.get("$defs", {})


def _operation(route: Route, references: Mapping[type, Json], settings: Settings) -> Json:
    operation: Json = {"operationId": route.operation_id, "summary": route.summary}
    operation["responses"] = dict(_replies(route, references, settings))
    if parameters := list(_parameters(route)):
        operation["parameters"] = parameters
    if route.body:
        content = {"application/json": {"schema": references[route.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    if settings.api_key and not route.open:
        operation["security"] = [{"bearer": []}, {"key": []}]
    return operation


def _parameters(route: Route) -> Iterator[Json]:
    if "{" in route.path:
        name = route.path.partition("{")[2].rstrip("}")
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for name, schema in route.query.items():
        yield {"name": name, "in": "query", "required": False, "schema": schema}


def _replies(route: Route, references: Mapping[type, Json], settings: Settings) -> Iterator[tuple[str, Json]]:
    """The replies of a route by status, the good one first."""
    kind = "application/json" if route.reply else route.text
    content: Json = {kind: {"schema": references[route.reply] if route.reply else {"type": "string"}}}
    good: Json = {"description": route.summary, "content": content}
    if route.streams:
        content |= _stream(route)
    if route.gives_id_to:
        link = {"parameters": {"response_id": "$response.body#/id"}}
        good["links"] = {name: {"operationId": name, **link} for name in route.gives_id_to}
    yield "200", good
    if route.healthy_only:
        yield "503", {**good, "headers": COME_BACK}
    errors = {*route.errors}
    if not route.open:
        errors |= ({401} if settings.api_key else set()) | ({429} if settings.rate_limit or route.generates else set())
    envelope = references[route.envelope]
    for status in sorted(errors):
        reply: Json = {"description": STATUSES[status], "content": {"application/json": {"schema": envelope}}}
        yield str(status), {**reply, "headers": COME_BACK} if status in (429, 503) else reply


def _stream(route: Route) -> Json:
    """JSON Schema has no words for server-sent events (OpenAPI gets them with 3.2)."""
    return {
        "text/event-stream": {"schema": {"description": f"Server-sent events; the data of each is {route.streams}."}}
    }
