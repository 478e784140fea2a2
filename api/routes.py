"""The routes that there are, as /openapi.json tells of them: one entry is one method of one path."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from actors.snapshots import HouseSnapshot
from api.capabilities_client import Capabilities
from api.errors import speaks_anthropic
from api.operations import LONGEST_INTERVAL_S, SHORTEST_INTERVAL_S
from api.schema import replies as r
from api.schema.base import Body
from api.schema.chat import ChatBody
from api.schema.completions import CompletionBody
from api.schema.messages import CountBody, MessagesBody
from api.schema.responses import ResponsesBody

Json = dict[str, object]

READING = (400, 408, 413, 415)
"""What a body can be refused with."""
GENERATING = (*READING, 500, 503, 504)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path, as OpenAPI has it."""

    method: Literal["get", "post", "delete"]
    path: str
    summary: str
    reply: type | None
    """None is text."""
    text: str = "text/plain"
    """The media type of such a reply."""
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
        return self.body is not None and 504 in self.errors

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
    Route(
        method="delete",
        path="/v1/requests/{request_id}",
        summary="End an open request; whoever sent it gets an error",
        reply=r.Ended,
        errors=(404,),
    ),
    Route(method="get", path="/v1/cache", summary="What the prefix cache keeps", reply=r.Cache),
    Route(
        method="delete",
        path="/v1/cache",
        summary="Let go of all kept prefixes, in memory and on disk",
        reply=r.Cleared,
        errors=(503, 504),
    ),
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
    Route(
        method="get",
        path="/health/diagnostics",
        summary="Whether types, stop tokens, memory, versions and batches are as they should be",
        reply=r.HealthReport,
    ),
    Route(method="get", path="/openapi.json", summary="This document", reply=dict[str, object]),
    Route(
        method="get",
        path="/",
        summary="The actors and the requests, live in a browser",
        reply=None,
        text="text/html",
        open=True,
    ),
)
METRICS = Route(method="get", path="/metrics", summary="For Prometheus", reply=None, open=True)
