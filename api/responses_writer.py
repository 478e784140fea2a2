"""Writes a reply the way OpenAI's Responses API does: one object, or the sequence of events that builds it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from api import sse
from api.answer import Json
from api.choices import repetition_detected
from api.errors import ApiError
from api.exchange import ChoiceEvent, Cost, Ending
from api.logprobs import chat_logprobs
from api.response_output import Output, Status
from api.schema.responses import ResponsesBody
from api.text.codec import TextCodec


@dataclass(slots=True, kw_only=True)
class ResponsesWriter:
    """See Writer. A response has one choice."""

    id: str
    model: str
    body: ResponsesBody
    codec: TextCodec
    temperature: float
    top_p: float
    """What it is sampled with, whoever chose it."""
    keep: Callable[[Json], None]
    """Called with a response that has ended well."""
    created: int = field(default_factory=lambda: int(time.time()))
    _output: Output = field(init=False)
    _asked: Json = field(init=False)
    """The part of a response that repeats the request."""
    _ending: Ending | None = field(init=False, default=None)
    _sequence: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        namespaces = {tool.name: tool.namespace for tool in self.body.tools if tool.namespace}
        self._output = Output(self.id, namespaces)
        self._asked = _asked(self.body) | {"temperature": self.temperature, "top_p": self.top_p}

    def whole(self, choices: Sequence[ChoiceEvent], cost: Cost) -> Json:
        """See Writer."""
        for event in choices:
            self._take(event)
        return self._end(cost)

    def opening(self) -> Iterator[bytes]:
        """See Writer."""
        for kind in ("response.created", "response.in_progress"):
            yield self._frame({"type": kind, "response": self._response("in_progress")})

    def news(self, event: ChoiceEvent) -> Iterator[bytes]:
        """See Writer."""
        for each in self._take(event):
            yield self._frame(each)

    def closing(self, cost: Cost) -> Iterator[bytes]:
        """See Writer."""
        response = self._end(cost)
        yield self._frame({"type": f"response.{response['status']}", "response": response})

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """See Writer: clients listen for one of the two events, or for both. The codes of a response's own error are a
        closed list, in which all that can go wrong in a stream is `server_error`."""
        problem: Json = {"code": error.code or error.type, "message": error.message, "param": error.param}
        yield self._frame({"type": "error", **problem})
        failed: Json = {"code": "server_error", "message": error.message}
        yield self._frame({"type": "response.failed", "response": self._response("failed", error=failed)})

    def heartbeat(self) -> bytes:
        """See Writer."""
        return sse.HEARTBEAT

    @property
    def _status(self) -> Status:
        return "incomplete" if self._ending and self._ending.reason == "length" else "completed"

    def _take(self, event: ChoiceEvent) -> list[Json]:
        logprobs = chat_logprobs(event.scored, self.codec)["content"]
        events = list(self._output.take(event.parts, logprobs or ()))
        if event.ending:
            self._ending = event.ending
            events += self._output.close(self._status)
        return events

    def _end(self, cost: Cost) -> Json:
        response = self._response(self._status, usage=_usage(cost))
        self.keep(response)
        return response

    def _response(self, status: str, *, usage: Json | None = None, error: Json | None = None) -> Json:
        """The response as it stands; what the client asked for is told as the client said it."""
        cut = status == "incomplete"
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": error,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "model": self.model,
            "output": list(self._output.items),
            "usage": usage,
            **self._asked,
            **repetition_detected(self._ending),
        }

    def _frame(self, event: Json) -> bytes:
        frame = sse.event(str(event["type"]), event | {"sequence_number": self._sequence})
        self._sequence += 1
        return frame


def _asked(body: ResponsesBody) -> Json:
    same = (
        "instructions previous_response_id max_output_tokens top_logprobs parallel_tool_calls store background "
        "user service_tier prompt_cache_key safety_identifier"
    )
    given: Json = {name: getattr(body, name) for name in same.split()}
    return given | {
        "metadata": body.metadata or {},
        "truncation": "disabled",
        "reasoning": {"effort": body.reasoning.effort, "summary": body.reasoning.summary},
        "text": body.text.model_dump(by_alias=True, exclude_none=True),
        "tool_choice": _tool_choice(body),
        "tools": [
            {"type": "function", **tool.model_dump(exclude={"namespace"}), "strict": bool(tool.strict)}
            for tool in body.tools
        ],
    }


def _tool_choice(body: ResponsesBody) -> object:
    choice = body.tool_choice
    if choice.only is None:
        return choice.mode
    functions = [{"type": "function", "name": name} for name in sorted(choice.only)]
    if choice.mode == "required" and len(functions) == 1:
        return functions[0]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": functions}


def _usage(cost: Cost) -> Json:
    return {
        "input_tokens": cost.prompt_tokens,
        "input_tokens_details": {"cached_tokens": cost.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": cost.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": cost.thinking_tokens},
        "total_tokens": cost.prompt_tokens + cost.completion_tokens,
    }
