"""OpenTelemetry spans: one for a call, and one for each phase of each of its requests.

They are made when the call has ended, with the times that were noted; where no SDK is configured none are. Names are
those of the HTTP and the generative AI conventions (https://opentelemetry.io/docs/specs/semconv/), where they have any.
"""

import time
from dataclasses import dataclass

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

from api.call import CLIENT_LEFT, LONGEST_PATH, METHODS, Call
from api.times import Phase, Times
from runtime import __version__
from runtime.types import RequestId

LONGEST_NAME = 100
"""Characters of a model's name that a span repeats."""

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
}

Attributes = dict[str, str | int]


class Spans:
    """An observer of calls."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """None is the process's own, whenever that is set."""
        self._tracer = trace.get_tracer("troupe", __version__, provider)

    def observe(self, call: Call) -> None:
        """Tell of a call that has ended."""
        if isinstance(self._tracer, trace.ProxyTracer) and _nobody_listens():
            return
        parent = propagate.extract({name.decode("latin-1"): value.decode("latin-1") for name, value in call.headers})
        maker = _Maker(self._tracer, time.time_ns() - time.monotonic_ns())
        span = maker.span(_name(call), call.started_at, _of_call(call), parent, SpanKind.SERVER)
        if span.is_recording():
            _judge(span, _failure(call))
            times = call.exchange.times if call.exchange else {}
            for request_id, each in times.items():
                maker.phases(request_id, each, trace.set_span_in_context(span, parent))
        span.end(maker.wall_ns(call.started_at + call.lasted_s))


@dataclass(frozen=True, slots=True)
class _Maker:
    tracer: Tracer
    offset_ns: int
    """Of the wall's clock from `time.monotonic`."""

    def wall_ns(self, at: float) -> int:
        return self.offset_ns + round(at * 1e9)

    def span(
        self, name: str, at: float, attributes: Attributes, parent: Context, kind: SpanKind = SpanKind.INTERNAL
    ) -> Span:
        return self.tracer.start_span(name, parent, kind, attributes, start_time=self.wall_ns(at))

    def phases(self, request_id: RequestId, times: Times, parent: Context) -> None:
        phases = list(times.phases())
        for phase in phases:
            span = self.span(phase.name, phase.began_at, _of_phase(request_id, times, phase), parent)
            _judge(span, times.failure if phase is phases[-1] else None)
            span.end(self.wall_ns(phase.ended_at))


def _nobody_listens() -> bool:
    return isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _name(call: Call) -> str:
    """By the route's template: a name that clients cannot make more of."""
    method = call.method if call.method in METHODS else "HTTP"
    return f"{method} {call.route}" if call.route else method


def _of_call(call: Call) -> Attributes:
    attributes: Attributes = {
        "http.request.method": call.method if call.method in METHODS else "_OTHER",
        "http.response.status_code": call.outcome,
        "url.path": call.path[:LONGEST_PATH],
        "url.scheme": "http",
        "troupe.call_id": call.id,
    }
    if call.route:
        attributes["http.route"] = call.route
    if call.outcome == CLIENT_LEFT:
        attributes["error.type"] = "client_left"
    return attributes | _of_tokens(call)


def _of_tokens(call: Call) -> Attributes:
    if not call.exchange:
        return {}
    cost = call.exchange.cost
    return {
        "gen_ai.operation.name": OPERATIONS.get(call.route or "", "chat"),
        "gen_ai.provider.name": "troupe",
        "gen_ai.request.model": (call.model or "")[:LONGEST_NAME],
        "gen_ai.usage.input_tokens": cost.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": cost.cached_tokens,
        "gen_ai.usage.output_tokens": cost.completion_tokens,
    }


def _of_phase(request_id: RequestId, times: Times, phase: Phase) -> Attributes:
    attributes: Attributes = {"troupe.request_id": request_id}
    if phase.name == "prefill":
        attributes |= {"troupe.cached_tokens": times.cached_tokens, "troupe.runs": times.runs}
    if phase.name == "decode":
        attributes["troupe.tokens"] = times.tokens
    return attributes


def _failure(call: Call) -> str | None:
    """What the server is to blame for: not a 4xx, by the conventions. A stream may fail behind a 200."""
    if 400 <= call.outcome < 500:
        return None
    return call.failure or (str(call.outcome) if call.outcome >= 500 else None)


def _judge(span: Span, failure: str | None) -> None:
    if failure:
        span.set_attribute("error.type", failure)
        span.set_status(Status(StatusCode.ERROR))
