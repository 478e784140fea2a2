"""The key: everything but /health is behind it."""

import pytest
from quart import Quart

from api.text.codec import HfCodec
from tests.api.calling import call
from tests.api.fakes import CHAT, FakeDesk, make_app

pytestmark = pytest.mark.anyio

KEY = "s3cret-clé"


@pytest.fixture
def locked(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> Quart:
    return make_app(desk, fresh_codec, anyio_backend, api_key=KEY)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
        {"Authorization": "Bearer wrong", "x-api-key": KEY},
    ],
)
async def test_a_missing_or_wrong_key_is_a_401_on_every_route(
    locked: Quart, desk: FakeDesk, headers: dict[str, str]
) -> None:
    for method, path in (
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/status"),
        ("GET", "/v1/cache"),
        ("DELETE", "/v1/cache"),
        ("DELETE", "/v1/requests/c"),
        ("GET", "/v1/actors"),
        ("GET", "/v1/nowhere"),
        ("OPTIONS", "/v1/models"),
    ):
        reply = await call(locked, method, path, CHAT, headers=headers)
        assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.headers["x-should-retry"] == "false"
    assert desk.admitted == []
    assert desk.cancelled == []


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"X-Api-Key": KEY}]
)
async def test_the_key_opens_in_either_header(locked: Quart, headers: dict[str, str]) -> None:
    assert (await call(locked, "POST", "/v1/chat/completions", CHAT, headers=headers)).status == 200


async def test_health_needs_no_key(locked: Quart) -> None:
    assert (await call(locked, "GET", "/health")).status == 200


async def test_without_a_key_set_none_is_asked_for(app: Quart) -> None:
    assert (await call(app, "GET", "/v1/models")).status == 200
