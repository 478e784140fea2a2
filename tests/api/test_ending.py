"""DELETE /v1/requests/{id}: whoever runs the server ends a request, in whatever phase and however it was asked; its
client is told in its own words, and nothing of its call goes on."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import anyio
import orjson
import pytest
from pydantic import TypeAdapter
from quart import Quart

from actors import messages as m
from actors.replies import Replies
from actors.snapshots import HouseSnapshot
from actors.system import House
from api.schema.document import readable
from api.schema.replies import Ended
from api.text.codec import HfCodec
from runtime.engine import commands as c
from runtime.settings import Settings
from runtime.types import CancelCause, RequestId
from tests.api.calling import Reply, call
from tests.api.fakes import API_FACTS, CHAT, PROMPT, FakeDesk, begins, make_app, says, snapshot
from tests.fakes import FakeEngine, Gate
from tests.house.opening import all_free, ask, hear, open_house, until

pytestmark = pytest.mark.anyio

Json = dict[str, object]
DIALECTS = [
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", PROMPT),
    ("/v1/messages", CHAT | {"max_tokens": 64}),
    ("/v1/responses", {"model": "default", "input": "Hi"}),
]
ENDED = "Whoever runs the server ended the request."


class WatchedDesk(FakeDesk):
    """Its snapshot tells of the requests that are really open."""

    def snapshot(self) -> HouseSnapshot:
        """See FrontDesk."""
        house = super().snapshot()
        assert house.admitter
        inside = tuple(each.request_id for each in self.admitted if not each.sink.ended)
        return replace(house, admitter=replace(house.admitter, open_requests=inside, arrived_at=()))


@pytest.fixture
def desk() -> FakeDesk:
    return WatchedDesk()


def staged(request: m.Request) -> Iterable[m.Reply]:
    yield m.PrefillAdvanced(request.request_id, 1, 9)


PHASES = [
    pytest.param(lambda _request: [], id="queued"),
    pytest.param(staged, id="prefill"),
    pytest.param(begins("Hello"), id="generation"),
]


@asynccontextmanager
async def asking(app: Quart, route: str, body: Json) -> AsyncIterator[list[Reply]]:
    """Calls beside the block; the reply is in the list when both have ended."""
    replies: list[Reply] = []

    async def ask() -> None:
        replies.append(await call(app, "POST", route, body))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        yield replies


def told(route: str, reply: Reply, *, stream: bool) -> Json:
    """The error that the client was told of, in its dialect's envelope."""
    if not stream:
        assert reply.status == 503
        assert reply.headers["x-should-retry"] == "false"  # Or its library asks again at once.
        assert "retry-after" not in reply.headers
        return reply.json
    assert (reply.status, reply.complete) == (200, True)
    data = [line.removeprefix(b"data: ") for line in reply.body.splitlines() if line.startswith(b"data: ")]
    last = cast("Json", orjson.loads(data[-1]))  # So it is no [DONE].
    return cast("Json", last["response"]) if route == "/v1/responses" else last


@pytest.mark.parametrize("script", PHASES)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("route", "body"), DIALECTS)
async def test_a_request_is_ended_and_its_client_is_told_in_its_own_dialect(
    app: Quart, desk: FakeDesk, route: str, body: Json, stream: bool, script: object
) -> None:
    desk.script = script  # type: ignore[assignment]
    async with asking(app, route, body | {"stream": stream}) as replies:
        await desk.until(lambda desk: desk.admitted)
        request_id = desk.admitted[0].request_id
        ended = await call(app, "DELETE", f"/v1/requests/{request_id}")
    assert (ended.status, ended.json) == (200, {"id": request_id, "object": "request.cancelled", "cancelled": True})
    TypeAdapter(readable(Ended)).validate_python(ended.json, strict=True)
    problem = told(route, replies[0], stream=stream)
    error = cast("Json", problem["error"])
    assert error["message"] == ENDED
    kinds = {"/v1/messages": "overloaded_error", "/v1/responses": "server_error" if not stream else None}
    assert error.get("type") == kinds.get(route, "server_error")
    assert desk.cancelled == [(request_id, CancelCause.OPERATOR)]


@pytest.mark.parametrize("phase", ["queued", "prefill", "generation"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("route", "body"), DIALECTS)
async def test_in_a_real_house_nothing_of_it_is_left(
    fresh_codec: HfCodec, anyio_backend: str, route: str, body: Json, stream: bool, phase: str
) -> None:
    gate = Gate(c.Prefill if phase == "prefill" else c.Decode)
    engine = FakeEngine(facts=API_FACTS, before=gate)
    more = {"n": 2} if "completions" in route else {}
    async with open_house(lambda: engine, settings=Settings(max_concurrency=2)) as house:
        app = make_app(house, fresh_codec, anyio_backend)
        with Replies() as running:
            names = ["r1", "r2"] if phase == "queued" else []
            house.admit(tuple(ask(house, running, name) for name in names))
            async with asking(app, route, body | more | {"stream": stream}) as replies:
                with anyio.fail_after(10):
                    await until(lambda: gate.reached.is_set() and len(inside(house)) > len(names))
                ended = await call(app, "DELETE", f"/v1/requests/{inside(house)[-1]}")
                assert ended.status == 200
                if phase == "queued":
                    with anyio.fail_after(10):
                        await until(lambda: list(inside(house)) == names)
                gate.open()
            assert cast("Json", told(route, replies[0], stream=stream)["error"])["message"] == ENDED
            if names:
                assert all(isinstance(heard[-1], m.Finished) for heard in (await hear(running)).values())
        await all_free(house)
        with anyio.fail_after(10):
            await until(lambda: not (engine.rows or engine.caches or engine.finished))


def inside(house: House) -> tuple[RequestId, ...]:
    admitter = house.snapshot().admitter
    return admitter.open_requests if admitter else ()


@pytest.mark.parametrize("stream", [True, False])
async def test_one_of_several_takes_its_call_along_and_the_others_are_ended(
    app: Quart, desk: FakeDesk, stream: bool
) -> None:
    desk.script = begins("Hello")
    route = "/v1/chat/completions"
    async with asking(app, route, CHAT | {"stream": stream, "n": 3}) as replies:
        await desk.until(lambda desk: len(desk.admitted) == 3)
        first, second, third = (request.request_id for request in desk.admitted)
        await call(app, "DELETE", f"/v1/requests/{second}")
    assert cast("Json", told(route, replies[0], stream=stream)["error"])["message"] == ENDED
    assert desk.cancelled == [
        (second, CancelCause.OPERATOR),
        (first, CancelCause.CLIENT_LEFT),
        (third, CancelCause.CLIENT_LEFT),
    ]
    assert all(request.sink.ended for request in desk.admitted)


async def test_one_whose_own_stop_string_came_first_is_answered(app: Quart, desk: FakeDesk) -> None:
    """It has all that it asked for, and waits for its last word only."""
    stopping: list[m.Request] = []

    def stays(request: m.Request) -> Iterable[m.Reply]:
        stopping.append(request)
        return begins("Hello world.")(request)

    desk.script = stays
    desk.cancel = lambda request_id, cause: desk.cancelled.append((request_id, cause))  # type: ignore[method-assign]
    async with asking(app, "/v1/chat/completions", CHAT | {"stop": " world"}) as replies:
        with anyio.fail_after(10):
            await until(lambda: desk.cancelled)
        request_id = stopping[0].request_id
        await call(app, "DELETE", f"/v1/requests/{request_id}")
        stopping[0].sink.last_word(m.Cancelled(request_id, CancelCause.OPERATOR, m.Usage(1, 0, 1)))
    assert replies[0].status == 200
    assert b'"content":"Hello"' in replies[0].body


@pytest.mark.parametrize("request_id", ["nobody", "chatcmpl-1-0", "%00", "a" * 5000])
async def test_a_request_that_is_not_open_is_a_404(app: Quart, desk: FakeDesk, request_id: str) -> None:
    reply = await call(app, "DELETE", f"/v1/requests/{request_id}")
    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "request_not_found", "request_id")
    assert len(reply.body) < 500
    assert desk.cancelled == []


async def test_a_request_that_has_been_answered_is_a_404(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("Hello")
    await call(app, "POST", "/v1/completions", PROMPT)
    reply = await call(app, "DELETE", f"/v1/requests/{desk.admitted[0].request_id}")
    assert reply.status == 404
    assert desk.cancelled == []


async def test_before_the_house_is_open_no_request_is(app: Quart, desk: FakeDesk) -> None:
    desk.snapshot = lambda: replace(snapshot(), admitter=None)  # type: ignore[method-assign]
    assert (await call(app, "DELETE", "/v1/requests/a")).status == 404
