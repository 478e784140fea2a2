"""The prefix cache as clients see it: whom it is shared with, what it keeps, and that it can be cleared."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import anyio
import pytest
from pydantic import TypeAdapter
from quart import Quart

from actors.snapshots import CacheSnapshot, RoomState
from api.schema.replies import Cleared
from api.text.codec import HfCodec
from runtime.types import CacheStrategy
from tests.api.calling import Reply, call
from tests.api.fakes import CACHE, CHAT, PROMPT, FakeDesk, make_app, snapshot

pytestmark = pytest.mark.anyio

Json = dict[str, object]

ROUTE = "/v1/cache"
MESSAGE: Json = {**CHAT, "max_tokens": 9}
INPUT: Json = {"model": "default", "input": "Hi there"}
DIALECTS = [
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", PROMPT),
    ("/v1/messages", MESSAGE),
    ("/v1/responses", INPUT),
]


# --- whom it is shared with ---


@pytest.mark.parametrize(("route", "body"), DIALECTS)
async def test_a_salt_goes_with_the_request_in_every_dialect(
    app: Quart, desk: FakeDesk, route: str, body: Json
) -> None:
    for salt in ({}, {"cache_salt": None}, {"cache_salt": "tenant-1"}, {"cache_salt": "é" * 256, "stream": True}):
        assert (await call(app, "POST", route, body | salt)).status == 200
    assert [request.cache_salt for request in desk.admitted] == ["", "", "tenant-1", "é" * 256]


async def test_all_choices_and_prompts_of_a_call_have_its_salt(app: Quart, desk: FakeDesk) -> None:
    body = PROMPT | {"prompt": ["Once", "upon"], "n": 2, "cache_salt": "tenant-1"}
    await call(app, "POST", "/v1/completions", body)
    assert [request.cache_salt for request in desk.admitted] == ["tenant-1"] * 4


@pytest.mark.parametrize("salt", ["", "x" * 257, 5, ["x"]])
@pytest.mark.parametrize(("route", "body"), DIALECTS)
async def test_what_is_no_salt_is_a_400_in_the_words_of_the_dialect(
    app: Quart, desk: FakeDesk, route: str, body: Json, salt: object
) -> None:
    reply = await call(app, "POST", route, body | {"cache_salt": salt})
    assert reply.status == 400
    if route == "/v1/messages":
        assert (reply.json["type"], cast("Json", reply.json["error"])["type"]) == ("error", "invalid_request_error")
        assert b"cache_salt" in reply.body
    else:
        assert reply.error["param"] == "cache_salt"
    assert desk.admitted == []


async def test_half_a_character_is_no_salt(app: Quart) -> None:
    reply = await call(app, "POST", "/v1/completions", b'{"prompt": "Hi", "cache_salt": "\\ud800"}')
    assert (reply.status, reply.error["code"]) == (400, "invalid_json")


async def test_the_tokens_of_a_message_are_counted_whatever_its_salt(app: Quart) -> None:
    plain = await call(app, "POST", "/v1/messages/count_tokens", CHAT)
    salted = await call(app, "POST", "/v1/messages/count_tokens", CHAT | {"cache_salt": "tenant-1"})
    assert (salted.status, salted.json) == (200, plain.json)


async def test_a_salt_is_not_told_to_who_reads_the_response(app: Quart) -> None:
    first = await call(app, "POST", "/v1/responses", INPUT | {"cache_salt": "tenant-1"})
    again = await call(app, "GET", f"/v1/responses/{first.json['id']}")
    assert b"tenant-1" not in first.body + again.body


# --- what it keeps ---


async def test_it_says_what_is_kept_and_what_has_come_of_it(app: Quart) -> None:
    kept = {
        "type": "paged",
        "entries": 4,
        "hit_rate": 0.25,
        "memory_mb": 3.0,
        "disk_entries": 7,
        "disk_mb": 6.0,
        "hits": {"exact": 2, "prefix": 0, "supersequence": 0, "lcp": 1, "miss": 9},
        "evictions": 5,
    }
    assert (await call(app, "GET", ROUTE)).json == kept
    assert (await call(app, "GET", "/v1/status")).json["cache"] == kept


@pytest.mark.parametrize(
    ("settings", "kind"), [({}, "auto"), ({"cache_strategy": "legacy"}, "legacy"), ({"use_paged_cache": True}, "paged")]
)
async def test_before_the_model_is_loaded_it_says_what_was_asked_for(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str, settings: Json, kind: str
) -> None:
    desk.house = replace(snapshot(RoomState.LOADING), cache=None)
    shown = (await call(make_app(desk, fresh_codec, anyio_backend, **settings), "GET", ROUTE)).json
    assert (shown["type"], shown["entries"], shown["hit_rate"], shown["disk_mb"]) == (kind, 0, 0.0, 0.0)
    assert shown["hits"] == {"exact": 0, "prefix": 0, "supersequence": 0, "lcp": 0, "miss": 0}


async def test_one_that_is_off_keeps_its_type_and_nothing_else(app: Quart, desk: FakeDesk) -> None:
    off = replace(CACHE, strategy=CacheStrategy.MEMORY_AWARE, stored_bytes=0, entries=0, pieces=0, hits={})
    desk.house = replace(snapshot(), cache=off)
    shown = (await call(app, "GET", ROUTE)).json
    assert (shown["type"], shown["entries"], shown["memory_mb"], shown["hit_rate"]) == ("memory-aware", 0, 0.0, 0.0)


# --- that it can be cleared ---


NOTHING = replace(CACHE, stored_bytes=0, entries=0, pieces=0, disk_bytes=0, disk_entries=0)


@pytest.mark.parametrize(
    ("left", "cleared"),
    [
        (NOTHING, True),
        (replace(NOTHING, disk_bytes=2 << 20, disk_entries=1), False),  # A file that cannot be deleted.
        (replace(NOTHING, stored_bytes=1 << 20, entries=1), True),  # What somebody else has said meanwhile.
    ],
)
async def test_to_clear_is_answered_when_the_files_are_gone_and_says_what_is_left(
    app: Quart, desk: FakeDesk, left: CacheSnapshot, cleared: bool
) -> None:
    async with clearing(app) as replies:
        await desk.until(lambda desk: desk.clearings)
        await anyio.wait_all_tasks_blocked()
        assert replies == []
        desk.house = replace(snapshot(), cache=left)
        desk.clearings[0]()
    (reply,) = replies
    sizes = {
        "entries": left.entries,
        "memory_mb": left.stored_bytes / 2**20,
        "disk_entries": left.disk_entries,
        "disk_mb": left.disk_bytes / 2**20,
    }
    assert (reply.status, reply.json) == (200, {"object": "cache", "cleared": cleared, **sizes})
    assert TypeAdapter(Cleared).validate_python(reply.json, strict=True) == reply.json


@pytest.mark.parametrize("cache", [None, CACHE])
async def test_to_clear_waits_for_an_engine_that_is_started_again(
    app: Quart, desk: FakeDesk, cache: CacheSnapshot | None
) -> None:
    desk.house = replace(snapshot(RoomState.RESTARTING), cache=cache)
    async with clearing(app) as replies:
        await desk.until(lambda desk: desk.clearings)
        await anyio.wait_all_tasks_blocked()
        assert replies == []
        desk.house = replace(snapshot(), cache=NOTHING)
        desk.clearings[0]()
    assert [(reply.status, reply.json["cleared"]) for reply in replies] == [(200, True)]


@asynccontextmanager
async def clearing(app: Quart) -> AsyncIterator[list[Reply]]:
    """Calls DELETE beside the block; its reply is in the list when both have ended."""
    replies: list[Reply] = []

    async def clear() -> None:
        replies.append(await call(app, "DELETE", ROUTE))

    async with anyio.create_task_group() as group:
        group.start_soon(clear)
        yield replies


async def test_to_clear_has_a_deadline(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> None:
    reply = await call(make_app(desk, fresh_codec, anyio_backend, timeout=0.01), "DELETE", ROUTE)
    assert (reply.status, reply.error["code"]) == (504, "deadline")
    assert reply.error["message"] == "The cache was not cleared within 0.01 seconds."
    desk.clearings[0]()  # Late, and nobody minds.


async def test_what_the_engine_does_not_have_yet_cannot_be_cleared(app: Quart, desk: FakeDesk) -> None:
    desk.house = replace(snapshot(RoomState.LOADING), cache=None)
    reply = await call(app, "DELETE", ROUTE)
    assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "loading", "1")
    assert desk.clearings == []
