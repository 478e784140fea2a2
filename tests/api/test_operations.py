"""/health, /v1/status, /v1/actors and /v1/models: what they say is what the snapshot says."""

from dataclasses import replace
from typing import cast

import anyio
import orjson
import pytest
from pydantic import TypeAdapter
from quart import Quart

from actors.snapshots import HouseSnapshot, RoomState
from api.schema.document import readable
from api.schema.replies import Status
from runtime.types import RuntimeMode
from tests.api.calling import call
from tests.api.fakes import PROBE, TROUBLE, VITALS, FakeDesk, events, snapshot

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("house", "code", "status"),
    [
        (snapshot(), 200, "ok"),
        (snapshot(RoomState.LOADING), 503, "loading"),
        (snapshot(RoomState.RESTARTING), 503, "restarting"),
        (snapshot(draining=True), 503, "draining"),
        (snapshot(RoomState.RESTARTING, draining=True), 503, "draining"),
        (replace(snapshot(RoomState.LOADING), admitter=None), 503, "loading"),
    ],
)
async def test_health_is_good_only_if_the_next_request_would_be_served(
    app: Quart, desk: FakeDesk, house: HouseSnapshot, code: int, status: str
) -> None:
    desk.house = house
    reply = await call(app, "GET", "/health")
    assert (reply.status, reply.json) == (code, {"status": status, "model": "tiny/llama", "uptime_s": 4.5})


async def test_status_tells_what_runs_what_waits_and_what_it_costs(app: Quart) -> None:
    body = (await call(app, "GET", "/v1/status")).json
    requests = cast("list[dict[str, object]]", body.pop("requests"))
    assert body.pop("cache") == (await call(app, "GET", "/v1/cache")).json
    assert body == {
        "status": "running",
        "model": "tiny/llama",
        "uptime_s": 4.5,
        "steps_executed": 40,
        "num_running": 2,
        "num_waiting": 1,
        "num_preemptions": 2,
        "total_requests_processed": 9,
        "total_prompt_tokens": 100,
        "total_completion_tokens": 50,
        "metal": {"active_memory_gb": 2.0, "peak_memory_gb": 3.0, "cache_memory_gb": 1.0},
        "memory": {"pressure": "normal", "engine_resident_gb": 4.0, "system_used_percent": 50.0},
        "runtime": {"mode": "batched", "serialized": False, "active_concurrency": 3, "peak_concurrency": 6},
        "divergence": None,
    }
    waiting, prefilling, decoding = requests
    assert waiting == {
        "request_id": "a",
        "age_s": 4.0,
        "phase": "queued",
        "tokens_per_second": 0.0,
        "ttft_s": None,
        "progress": 0.0,
        "cache_hit_type": None,
        "cached_tokens": 0,
        "generated_tokens": 0,
        "max_tokens": None,
    }
    assert prefilling == waiting | {
        "request_id": "b",
        "age_s": 3.0,
        "phase": "prefill",
        "progress": 0.25,
        "cache_hit_type": "prefix",
        "cached_tokens": 10,
        "max_tokens": 64,
    }
    assert decoding == waiting | {
        "request_id": "c",
        "age_s": 0.5,
        "phase": "generation",
        "tokens_per_second": 12.5,
        "ttft_s": 0.25,
        "progress": 0.25,
        "cache_hit_type": "miss",
        "generated_tokens": 16,
        "max_tokens": 64,
    }


@pytest.mark.parametrize(("room", "status"), [(RoomState.LOADING, "not_loaded"), (RoomState.RESTARTING, "stopped")])
async def test_status_of_a_closed_engine_room_has_everybody_waiting(
    app: Quart, desk: FakeDesk, room: RoomState, status: str
) -> None:
    desk.house = replace(snapshot(room), scheduler=None, prefill=None, decode=None, cache=None, monitor=None)
    body = (await call(app, "GET", "/v1/status")).json
    assert (body["status"], body["num_running"], body["num_waiting"]) == (status, 0, 3)
    assert [each["phase"] for each in cast("list[dict[str, object]]", body["requests"])] == ["queued"] * 3
    assert cast("dict[str, object]", body["metal"])["active_memory_gb"] is None
    assert set(cast("dict[str, object]", body["memory"]).values()) == {None}
    assert body["num_preemptions"] == 0
    assert cast("dict[str, object]", body["runtime"])["mode"] is None


async def test_status_tells_what_the_probes_found_and_what_follows_from_it(app: Quart, desk: FakeDesk) -> None:
    house = snapshot()
    assert house.scheduler
    serial = replace(house.scheduler, mode=RuntimeMode.SIMPLE, serialised=True)
    desk.house = replace(house, scheduler=serial, probe=PROBE)
    body = (await call(app, "GET", "/v1/status")).json
    TypeAdapter(readable(Status)).validate_python(body, strict=True)
    runtime = cast("dict[str, object]", body["runtime"])
    assert (runtime["mode"], runtime["serialized"]) == ("simple", True)
    company = {
        "prompts": 8,
        "compared_tokens": 256,
        "agreement": 0.75,
        "first_difference": 4,
        "largest_logprob_difference": 0.125,
    }
    assert cast("dict[str, dict[str, object]]", body["divergence"]).pop("tallies")["company"] == company
    assert body["divergence"] == {
        "rounds": 3,
        "given_up": 1,
        "under_way": False,
        "diverged": True,
        "threshold": 0.95,
        "seconds_since_round": 2.0,
    }


async def test_how_old_a_request_is_is_null_where_nobody_says_when_it_came(app: Quart, desk: FakeDesk) -> None:
    house = snapshot()
    assert house.admitter
    desk.house = replace(house, admitter=replace(house.admitter, arrived_at=()))
    requests = cast("list[dict[str, object]]", (await call(app, "GET", "/v1/status")).json["requests"])
    assert [each["age_s"] for each in requests] == [None] * 3


async def test_actors_are_the_whole_snapshot(app: Quart, desk: FakeDesk) -> None:
    desk.house = replace(snapshot(), probe=PROBE, engine=VITALS, troubles=(TROUBLE,))
    body = (await call(app, "GET", "/v1/actors")).json
    assert body == orjson.loads(orjson.dumps(desk.house, option=orjson.OPT_NON_STR_KEYS))
    assert cast("dict[str, object]", body["admitter"])["open_requests"] == ["a", "b", "c"]
    assert cast("dict[str, object]", body["cache"])["hits"] == {"exact": 2, "lcp": 1, "miss": 9}


async def test_actors_streamed_go_on_until_the_house_drains(app: Quart, desk: FakeDesk) -> None:
    steps = iter(range(40, 44))

    def house() -> HouseSnapshot:
        step = next(steps)
        return replace(snapshot(draining=step == 43), steps_executed=step)

    desk.snapshot = house  # type: ignore[method-assign]
    reply = await call(app, "GET", "/v1/actors?stream=true&interval=0.05")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.complete
    assert [orjson.loads(each)["steps_executed"] for each in events(reply.body)] == [40, 41, 42, 43]


async def test_a_watcher_who_leaves_ends_the_stream(app: Quart) -> None:
    leaving = anyio.Event()
    leaving.set()
    reply = await call(app, "GET", "/v1/actors?stream=true&interval=60", leaving=leaving)
    assert not reply.complete


async def test_only_the_head_of_a_stream_is_no_stream(app: Quart) -> None:
    assert (await call(app, "HEAD", "/v1/actors?stream=true")).complete


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "soon", "61"])
async def test_an_interval_that_makes_no_sense_is_a_400(app: Quart, interval: str) -> None:
    for stream in ("true", "false"):
        reply = await call(app, "GET", f"/v1/actors?stream={stream}&interval={interval}")
        assert (reply.status, reply.error["param"]) == (400, "interval")


async def test_to_stream_is_true_or_false(app: Quart) -> None:
    reply = await call(app, "GET", "/v1/actors?stream=yes")
    assert (reply.status, reply.error["param"]) == (400, "stream")


async def test_the_one_model_is_listed_under_its_real_name(app: Quart) -> None:
    model = {"id": "tiny/llama", "object": "model", "created": 1_700_000_000, "owned_by": "troupe"}
    assert (await call(app, "GET", "/v1/models")).json == {"object": "list", "data": [model]}
    assert (await call(app, "GET", "/v1/models/tiny/llama")).json == model


async def test_a_model_that_is_not_there_is_a_404(app: Quart) -> None:
    reply = await call(app, "GET", "/v1/models/gpt-4")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
