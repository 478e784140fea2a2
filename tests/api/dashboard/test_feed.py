"""The feed against real servers on a loopback port: snapshots, losses, restarts, and what is wrong otherwise."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import httpx
import orjson
import pytest
from hypothesis import given, settings
from quart import Quart
from quart_trio import QuartTrio

from actors.snapshots import HouseSnapshot
from api.dashboard import feed
from api.dashboard.feed import Lost, News, Server, server_url
from api.text.codec import HfCodec
from runtime.errors import SettingsError
from runtime.types import CancelCause
from tests.api.dashboard.houses import HOUSES
from tests.api.fakes import API_FACTS, FakeDesk, make_app, served, snapshot

pytestmark = pytest.mark.anyio


class Listener:
    """Hears the news, and waits for it."""

    def __init__(self) -> None:
        self.news: list[News] = []
        self._changed = anyio.Event()

    def hear(self, news: News) -> None:
        self.news.append(news)
        self._changed.set()

    async def until(self, condition: Callable[[News], object]) -> None:
        """Return at the first news, from now on, of which it is so."""
        self.news.clear()
        with anyio.fail_after(20):
            while not any(condition(each) for each in self.news):
                self._changed = anyio.Event()
                await self._changed.wait()

    async def until_lost(self, why: str) -> None:
        await self.until(lambda news: isinstance(news, Lost) and why in news.why)

    async def until_a_snapshot(self) -> None:
        await self.until(lambda news: isinstance(news, HouseSnapshot))


@asynccontextmanager
async def following(port: int, **options: str) -> AsyncIterator[Listener]:
    listener = Listener()
    async with anyio.create_task_group() as group:
        group.start_soon(feed.follow, Server(f"http://127.0.0.1:{port}", interval_s=0.05, **options), listener.hear)
        yield listener
        group.cancel_scope.cancel()


async def test_snapshots_come_as_the_server_has_them(app: Quart, desk: FakeDesk) -> None:
    desk.house = snapshot()
    async with served(app) as port, following(port) as listener:
        await listener.until(lambda news: news == desk.house)


async def test_a_server_that_comes_back_is_followed_again(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    async with served(make_app(desk, fresh_codec, anyio_backend)) as port:
        pass
    async with following(port) as listener:
        for _ in range(2):
            await listener.until_lost("nobody listens there")
            async with served(make_app(desk, fresh_codec, anyio_backend), port=port, closing_s=0.1):
                await listener.until_a_snapshot()


async def test_a_house_that_drains_is_asked_on_and_not_taken_for_lost(app: Quart, desk: FakeDesk) -> None:
    desk.house = snapshot(draining=True)
    async with served(app) as port, following(port) as listener:
        for _ in range(3):
            await listener.until_a_snapshot()
            assert not any(isinstance(news, Lost) for news in listener.news)


async def test_a_missing_key_a_wrong_one_and_the_right_one(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    async with served(make_app(desk, fresh_codec, anyio_backend, api_key="Sésam 芝麻")) as port:
        async with following(port) as listener:
            await listener.until_lost("it wants a key (--api-key or TROUPE_API_KEY)")
        async with following(port, api_key="guess") as listener:
            await listener.until_lost("its key is another one")
        async with following(port, api_key="Sésam 芝麻") as listener:
            await listener.until_a_snapshot()


async def test_another_server_is_told_from_a_troupe(anyio_backend: str) -> None:
    other = (QuartTrio if anyio_backend == "trio" else Quart)("other")
    other.add_url_rule("/v1/actors", "page", lambda: "<html>")
    async with served(other) as port, following(port) as listener:
        await listener.until_lost("that is not a Troupe server (GET /v1/actors is 200)")


async def test_cancelling_says_what_came_of_it(app: Quart, desk: FakeDesk) -> None:
    async with served(app) as port:
        server = Server(f"http://127.0.0.1:{port}")
        assert await feed.cancel(server, "a") == "cancelled"
        assert await feed.cancel(server, "ended? long ago") == "it has ended by itself"
    assert desk.cancelled == [("a", CancelCause.OPERATOR)]
    assert await feed.cancel(server, "a") == "not cancelled: nobody listens there"


@settings(max_examples=25, deadline=None)
@given(house=HOUSES)
def test_every_snapshot_is_read_as_it_was_written(house: HouseSnapshot) -> None:
    assert feed.decoded(orjson.dumps(house, option=orjson.OPT_NON_STR_KEYS)) == house


def test_a_number_that_json_does_not_know_is_infinity() -> None:
    house = replace(snapshot(), facts=replace(API_FACTS, padding_ratio=float("inf")))
    assert feed.decoded(orjson.dumps(house, option=orjson.OPT_NON_STR_KEYS)) == house


def test_what_a_newer_server_says_besides_is_left_alone() -> None:
    fields = orjson.loads(orjson.dumps(snapshot(), option=orjson.OPT_NON_STR_KEYS))
    fields["weather"] = fields["admitter"]["mood"] = "fine"
    assert feed.decoded(orjson.dumps(fields)) == snapshot()


@pytest.mark.parametrize("data", [b"{}", b"[]", b"nonsense", b"\xff", b'{"at": "soon"}'])
def test_frames_that_are_no_snapshots_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(feed.Refused, match="another version of Troupe"):
        feed.decoded(data)


@pytest.mark.parametrize(
    ("code", "headers", "why", "wait_s"),
    [
        (429, {"retry-after": "7"}, "too often", 7.0),
        (429, {"retry-after": "9999"}, "too often", feed.LONGEST_TOLD_WAIT_S),
        (503, {}, "not ready", feed.LONGEST_WAIT_S),
        (500, {}, "answers with 500", feed.LONGEST_WAIT_S),
        (404, {}, "not a Troupe server", feed.REFUSED_WAIT_S),
    ],
)
def test_a_refusal_says_when_to_come_back(code: int, headers: dict[str, str], why: str, wait_s: float) -> None:
    response = httpx.Response(code, headers=headers, request=httpx.Request("GET", "http://x"))
    with pytest.raises(feed.Refused, match=why) as refused:
        feed.check(response)
    assert refused.value.wait_s == wait_s


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://host/", "http://host"),
        ("https://host/troupe/v1?x=1#y", "https://host/troupe"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("http://host:8000/v1/", "http://host:8000"),
    ],
)
def test_a_server_is_named_as_people_do(text: str, url: str) -> None:
    assert server_url(text) == url


@pytest.mark.parametrize("text", ["", "ftp://host", "http://", "http://host:port"])
def test_what_names_no_server_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="URL: "):
        server_url(text)


@pytest.mark.parametrize("text", ["0", "0.01", "61", "nan", "often"])
def test_an_interval_that_no_server_takes_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--interval: must be 0\.05 to 60 seconds"):
        feed.interval(text)
