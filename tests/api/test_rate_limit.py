"""The rate limit: what it promises, for whom, and what is not limited."""

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart import Quart

from api import rate_limit
from api.rate_limit import RateLimit
from api.text.codec import HfCodec
from tests.api.calling import Reply, call
from tests.api.fakes import FakeDesk, make_app

KEY = "s3cret"


@pytest.mark.parametrize("per_minute", [1, 2, 7, 60, 1000])
def test_so_many_at_once_and_then_one_at_a_time(per_minute: int) -> None:
    limit = RateLimit(per_minute)
    for taken in range(per_minute):
        assert limit.wait_s("a", 10.0) == 0
        assert limit.remaining("a", 10.0) == per_minute - taken
        limit.take("a", 10.0)
    assert limit.remaining("a", 10.0) == 0
    assert limit.wait_s("a", 10.0) == pytest.approx(60 / per_minute)
    assert limit.full_in_s("a", 10.0) == pytest.approx(60)
    assert limit.wait_s("b", 10.0) == 0
    assert limit.remaining("a", 10.0 + 60) == per_minute


@given(
    per_minute=st.integers(1, 500),
    gaps=st.lists(st.floats(0, 90, allow_nan=False), max_size=60),
    start=st.floats(0, 1e7, allow_nan=False),
)
def test_whoever_waits_as_long_as_told_gets_through(per_minute: int, gaps: list[float], start: float) -> None:
    limit, now = RateLimit(per_minute), start
    for gap in gaps:
        now += gap
        wait = limit.wait_s("a", now)
        assert (wait == 0) == (limit.remaining("a", now) > 0)
        assert limit.wait_s("a", now + wait) == 0
        if not wait:
            limit.take("a", now)


@given(per_minute=st.integers(1, 50), gaps=st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=300))
def test_no_stretch_of_time_sees_more_than_the_bucket_and_what_flows_in(per_minute: int, gaps: list[float]) -> None:
    limit, now, through = RateLimit(per_minute), 0.0, []
    for gap in gaps:
        now += gap
        if not limit.wait_s("a", now):
            limit.take("a", now)
            through.append(now)
    for first, begin in enumerate(through):
        for last in range(first, len(through)):
            assert last - first + 1 <= per_minute * (1 + (through[last] - begin) / 60) + 1e-3


def test_memory_is_bounded_and_nobody_at_the_limit_is_forgotten_for_a_newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MOST_CLIENTS", 10)
    limit = RateLimit(2)
    limit.take("greedy", 0.0)
    limit.take("greedy", 0.0)
    for number in range(1000):
        limit.take(f"newcomer {number}", 0.0)
        assert len(limit._full_at) <= 10
    assert limit.wait_s("greedy", 0.0) > 0


# --- before the application ---


@pytest.fixture
def clock(desk: FakeDesk) -> list[float]:
    """The desk's clock: a list that holds the time."""
    now = [1000.0]
    desk.now = lambda: now[0]  # type: ignore[method-assign]
    return now


@pytest.fixture
def limited(desk: FakeDesk, clock: list[float], fresh_codec: HfCodec, anyio_backend: str) -> Quart:
    return make_app(desk, fresh_codec, anyio_backend, rate_limit=3)


@pytest.fixture
def locked(desk: FakeDesk, clock: list[float], fresh_codec: HfCodec, anyio_backend: str) -> Quart:
    return make_app(desk, fresh_codec, anyio_backend, rate_limit=3, api_key=KEY, enable_metrics=True)


async def models(app: Quart, address: str = "127.0.0.1", **headers: str) -> Reply:
    return await call(app, "GET", "/v1/models", headers=headers, address=address)


@pytest.mark.anyio
async def test_who_asks_too_often_is_told_when_to_come_back_and_that_is_true(
    limited: Quart, clock: list[float]
) -> None:
    replies = [await models(limited) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["2", "1", "0", "0"]
    assert replies[0].headers["x-ratelimit-limit-requests"] == "3"
    assert replies[3].headers["x-ratelimit-reset-requests"] == "60s"
    assert (replies[3].error["type"], replies[3].error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    clock[0] += int(replies[3].headers["retry-after"]) - 1
    assert (await models(limited)).status == 429
    clock[0] += 1
    assert (await models(limited)).status == 200


@pytest.mark.anyio
async def test_clients_of_anthropic_are_told_in_their_own_words(limited: Quart) -> None:
    for _ in range(3):
        await models(limited)
    reply = await call(limited, "POST", "/v1/messages", {})
    assert (reply.status, reply.headers["retry-after"]) == (429, "20")
    assert reply.json["type"] == "error"
    assert cast("dict[str, str]", reply.json["error"])["type"] == "rate_limit_error"


@pytest.mark.anyio
async def test_addresses_have_limits_of_their_own_and_what_a_client_says_of_itself_counts_for_nothing(
    limited: Quart,
) -> None:
    for number in range(3):
        assert (await models(limited, **{"X-Forwarded-For": f"10.0.0.{number}"})).status == 200
    assert (await models(limited, **{"X-Forwarded-For": "10.0.0.9", "Forwarded": "for=10.0.0.9"})).status == 429
    assert (await models(limited, "127.0.0.2")).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
async def test_an_ipv6_client_is_its_network(limited: Quart, one: str, other: str, same: bool) -> None:
    for _ in range(3):
        assert (await models(limited, one)).status == 200
    assert (await models(limited, other)).status == (429 if same else 200)


@pytest.mark.anyio
async def test_holders_of_the_key_are_one_client_wherever_they_are(locked: Quart) -> None:
    for number in range(3):
        assert (await models(locked, f"10.0.0.{number}", **{"x-api-key": KEY})).status == 200
    assert (await models(locked, "10.0.0.9", **{"x-api-key": KEY})).status == 429


@pytest.mark.anyio
async def test_wrong_keys_are_limited_by_address_and_then_not_even_looked_at(locked: Quart, clock: list[float]) -> None:
    statuses = [(await models(locked, **{"x-api-key": f"guess {n}"})).status for n in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert (await models(locked, **{"x-api-key": KEY})).status == 429
    assert (await models(locked, "127.0.0.2", **{"x-api-key": KEY})).status == 200
    clock[0] += 20
    assert (await models(locked, **{"x-api-key": KEY})).status == 200


@pytest.mark.anyio
async def test_health_and_metrics_are_never_limited(locked: Quart) -> None:
    for _ in range(10):
        assert (await call(locked, "GET", "/health")).status == 200
        assert (await call(locked, "GET", "/metrics")).status == 200
    assert (await models(locked, **{"x-api-key": KEY})).headers["x-ratelimit-remaining-requests"] == "2"


@pytest.mark.anyio
async def test_without_a_limit_nobody_is_counted(app: Quart) -> None:
    replies = [await models(app) for _ in range(20)]
    assert {reply.status for reply in replies} == {200}
    assert "x-ratelimit-limit-requests" not in replies[0].headers
