"""OpenTelemetry spans: what a call and the phases of its requests look like to whoever configures the SDK."""

import statistics
import time
from collections.abc import Iterator
from itertools import pairwise

import anyio
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from quart import Quart
from quart_trio import QuartTrio

from actors import messages as m
from api.app import create_app
from api.call import Call
from api.context import ApiContext
from api.spans import Spans
from api.text.codec import HfCodec
from runtime.settings import Settings
from runtime.types import CancelCause
from tests.api.calling import call
from tests.api.fakes import CHAT, FakeDesk, begins, cancelled_by, ends_with, says

pytestmark = pytest.mark.anyio

ROUTE = "/v1/chat/completions"
SECRET = "xyzzy-plugh"


class Exporter(InMemorySpanExporter):
    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span


@pytest.fixture
def exporter() -> Exporter:
    return Exporter()


@pytest.fixture
def traced(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str, exporter: Exporter) -> Quart:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    context = ApiContext(settings=Settings(), desk=desk, codec=fresh_codec, model_id="tiny/llama", created=1)
    app_class = QuartTrio if anyio_backend == "trio" else Quart
    return create_app(context, app_class=app_class, observers=[Spans(provider).observe])


def staged(request: m.Request) -> Iterator[m.Reply]:
    yield m.Staged(request.request_id, 9)
    yield from says("Hello world.", cached_tokens=9)(request)


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_is_a_span_and_the_phases_of_its_request_are_its_children(
    traced: Quart, desk: FakeDesk, exporter: Exporter, stream: bool
) -> None:
    desk.script = staged
    before = time.time_ns()
    reply = await call(traced, "POST", ROUTE, CHAT | {"stream": stream})
    server = exporter.span(f"POST {ROUTE}")
    assert (server.kind, server.parent) == (SpanKind.SERVER, None)
    assert server.status.status_code is StatusCode.UNSET
    said = attributes(server)
    assert (said["http.request.method"], said["http.route"], said["http.response.status_code"]) == ("POST", ROUTE, 200)
    assert said["troupe.call_id"] == reply.headers["x-request-id"]
    assert (said["gen_ai.operation.name"], said["gen_ai.request.model"]) == ("chat", "default")
    assert said["gen_ai.usage.input_tokens"] == len(desk.admitted[0].prompt_ids)
    assert said["gen_ai.usage.cache_read.input_tokens"] == 9
    phases = [exporter.span(name) for name in ("queue", "prefill", "decode")]
    assert all(phase.parent == server.context for phase in phases)
    assert {attributes(phase)["troupe.request_id"] for phase in phases} == {desk.admitted[0].request_id}
    assert attributes(phases[1])["troupe.cached_tokens"] == 9
    edges = [before, server.start_time, *(phase.start_time for phase in phases), phases[-1].end_time, server.end_time]
    edges.append(time.time_ns())
    assert all(isinstance(edge, int) for edge in edges)
    # The offset of the two clocks is taken once per call: it may differ from an earlier reading by microseconds.
    assert all(later - earlier > -1_000_000 for earlier, later in pairwise(edges))  # type: ignore[operator]
    assert [phase.end_time for phase in phases[:2]] == [phase.start_time for phase in phases[1:]]


async def test_every_choice_has_its_own_phases(traced: Quart, desk: FakeDesk, exporter: Exporter) -> None:
    desk.script = staged
    await call(traced, "POST", ROUTE, CHAT | {"n": 3})
    assert len(exporter.spans("decode")) == 3


async def test_the_parent_is_whoever_called(traced: Quart, exporter: Exporter) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await call(traced, "GET", "/health", headers={"traceparent": parent})
    span = exporter.span("GET /health")
    assert span.context
    assert span.parent
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"


@pytest.mark.parametrize("given", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_a_parent_that_is_none_is_ignored(traced: Quart, exporter: Exporter, given: str) -> None:
    await call(traced, "GET", "/health", headers={"traceparent": given})
    assert exporter.span("GET /health").parent is None


async def test_a_parent_that_is_not_sampled_leaves_no_span(traced: Quart, exporter: Exporter) -> None:
    await call(
        traced,
        "POST",
        ROUTE,
        CHAT,
        headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"},
    )
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_is_told_where_it_happened(
    traced: Quart, desk: FakeDesk, exporter: Exporter, stream: bool
) -> None:
    desk.script = ends_with(cancelled_by(CancelCause.DEADLINE), "Hello")
    await call(traced, "POST", ROUTE, CHAT | {"stream": stream})
    for span in (exporter.span("decode"), exporter.span(f"POST {ROUTE}")):
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == "deadline"
    assert attributes(span)["http.response.status_code"] == (200 if stream else 504)


async def test_a_bug_is_told_by_its_status(traced: Quart, desk: FakeDesk, exporter: Exporter) -> None:
    def broken(_request: m.Request) -> list[m.Reply]:
        raise RuntimeError

    desk.script = broken
    await call(traced, "POST", ROUTE, CHAT)
    assert attributes(exporter.span(f"POST {ROUTE}"))["error.type"] == "500"


async def test_a_clients_mistake_is_no_failure_of_the_server(traced: Quart, desk: FakeDesk, exporter: Exporter) -> None:
    await call(traced, "POST", ROUTE, b"{")
    assert exporter.span(f"POST {ROUTE}").status.status_code is StatusCode.UNSET
    assert "gen_ai.request.model" not in attributes(exporter.span(f"POST {ROUTE}"))


async def test_a_client_that_left_is_a_499(traced: Quart, desk: FakeDesk, exporter: Exporter) -> None:
    desk.script = begins("Hello")
    leaving = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: call(traced, "POST", ROUTE, CHAT | {"stream": True}, leaving=leaving))
        await desk.until(lambda desk: desk.admitted)
        leaving.set()
    span = exporter.span(f"POST {ROUTE}")
    assert attributes(span)["http.response.status_code"] == 499
    assert attributes(span)["error.type"] == "client_left"
    assert span.status.status_code is StatusCode.UNSET


async def test_names_are_not_for_clients_to_make_up(traced: Quart, exporter: Exporter) -> None:
    await call(traced, "BREW", "/coffee/1")
    assert attributes(exporter.span("HTTP"))["http.request.method"] == "_OTHER"


async def test_no_content_is_in_a_span(traced: Quart, desk: FakeDesk, exporter: Exporter) -> None:
    body = CHAT | {"messages": [{"role": "user", "content": SECRET}]}
    for desk.script in (says(SECRET), ends_with(lambda request_id: m.Failed(request_id, "it raised"), SECRET)):
        for stream in (True, False):
            path = f"{ROUTE}?key={SECRET}"
            await call(traced, "POST", path, body | {"stream": stream}, headers={"Authorization": f"Bearer {SECRET}"})
    assert len(exporter.get_finished_spans()) >= 8
    assert not [span for span in exporter.get_finished_spans() if SECRET in span.to_json()]


def test_without_an_sdk_spans_cost_next_to_nothing() -> None:
    """One type to look at per call: microseconds, where a call takes hundreds at least."""
    spans, ended = Spans(), Call("GET", "/health")
    costs = []
    for _ in range(1000):
        began = time.perf_counter()
        spans.observe(ended)
        costs.append(time.perf_counter() - began)
    assert statistics.median(costs) < 20e-6


def test_a_sampler_is_obeyed() -> None:
    exporter = Exporter()
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    Spans(provider).observe(Call("GET", "/health"))
    assert exporter.get_finished_spans() == ()
