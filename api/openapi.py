"""GET /openapi.json: what the API is, made of the bodies that check it. One entry in ROUTES is one route."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from quart import Blueprint

from actors.snapshots import HouseSnapshot
from api.capabilities_client import Capabilities
from api.errors import speaks_anthropic
from api.operations import LONGEST_INTERVAL_S, SHORTEST_INTERVAL_S
from api.schema import replies as r
from api.schema.base import Body
from api.schema.chat import ChatBody
from api.schema.completions import CompletionBody
from api.schema.document import BodySchema, readable
from api.schema.messages import CountBody, MessagesBody
from api.schema.responses import ResponsesBody
from runtime import __version__
from runtime.settings import Settings

Json = dict[str, object]

READING = (400, 408, 413, 415)
"""What a body can be refused with."""
GENERATING = (*READING, 500, 503, 504)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path, as OpenAPI has it."""

    method: Literal["get", "post", "delete"]
    path: str
    summary: str
    reply: type | None
    """None is text."""
    body: type[Body] | None = None
    streams: str = ""
    """What the data of its server-sent events is, where it may answer with a stream."""
    errors: tuple[int, ...] = ()
    query: Mapping[str, Json] = field(default_factory=dict)
    healthy_only: bool = False
    """Whether the reply also comes with 503."""
    open: bool = False
    """Whether it answers without a key."""
    gives_id_to: tuple[str, ...] = ()
    """Operations that take the id in its reply as `response_id`."""

    @property
    def operation_id(self) -> str:
        """Unique, and good as a name in a client."""
        return re.sub(r"\W+", "_", f"{self.method}{self.path.removeprefix('/v1')}").rstrip("_")

    @property
    def generates(self) -> bool:
        return 504 in self.errors

    @property
    def envelope(self) -> type:
        """What its errors come in."""
        return r.AnthropicErrorReply if speaks_anthropic(self.path) else r.ErrorReply


STREAM: Json = {"type": "string", "enum": ["true", "false"], "default": "false"}
INTERVAL: Json = {"type": "number", "minimum": SHORTEST_INTERVAL_S, "maximum": LONGEST_INTERVAL_S, "default": 1}

ROUTES = (
    Route(
        method="post",
        path="/v1/chat/completions",
        summary="The next turn of a conversation",
        body=ChatBody,
        reply=r.ChatCompletion,
        streams="a chat.completion.chunk, and at the end [DONE]",
        errors=(*GENERATING, 404),
    ),
    Route(
        method="post",
        path="/v1/completions",
        summary="How a text goes on",
        body=CompletionBody,
        reply=r.Completion,
        streams="a text_completion, and at the end [DONE]",
        errors=(*GENERATING, 404),
    ),
    Route(
        method="post",
        path="/v1/responses",
        summary="The next items of a conversation",
        body=ResponsesBody,
        reply=r.StoredResponse,
        streams="an event of the Responses API",
        errors=(*GENERATING, 404),
        gives_id_to=("get_responses_response_id", "delete_responses_response_id"),
    ),
    Route(
        method="get",
        path="/v1/responses/{response_id}",
        summary="A response that was stored",
        reply=r.StoredResponse,
        errors=(404,),
    ),
    Route(
        method="delete",
        path="/v1/responses/{response_id}",
        summary="Forget a stored response",
        reply=r.Deleted,
        errors=(404,),
    ),
    Route(
        method="post",
        path="/v1/messages",
        summary="The next message of a conversation",
        body=MessagesBody,
        reply=r.MessageReply,
        streams="an event of Anthropic's Messages API",
        errors=(*GENERATING, 404),
    ),
    Route(
        method="post",
        path="/v1/messages/count_tokens",
        summary="How many tokens the same message would be the answer to",
        body=CountBody,
        reply=r.TokenCount,
        errors=(*READING, 404),
    ),
    Route(method="get", path="/v1/models", summary="What is served", reply=r.ModelList),
    Route(
        method="get",
        path="/v1/models/{model_id}",
        summary="The model of that id, which may hold slashes",
        reply=r.Model,
        errors=(404,),
    ),
    Route(method="get", path="/v1/capabilities", summary="What can be asked for", reply=Capabilities, errors=(503,)),
    Route(method="get", path="/v1/status", summary="Totals, and every open request", reply=r.Status),
    Route(method="get", path="/v1/queue/stats", summary="How long the line is", reply=r.QueueStats),
    Route(
        method="get",
        path="/v1/actors",
        summary="The state of every actor, once or as a stream",
        reply=HouseSnapshot,
        streams="the same",
        errors=(400,),
        query={"stream": STREAM, "interval": INTERVAL},
    ),
    Route(
        method="get",
        path="/health",
        summary="Whether the next request would be served",
        reply=r.Health,
        healthy_only=True,
        open=True,
    ),
    Route(method="get", path="/openapi.json", summary="This document", reply=dict[str, object]),
)
METRICS = Route(method="get", path="/metrics", summary="For Prometheus", reply=None, open=True)


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
    kind = "application/json" if route.reply else "text/plain"
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
