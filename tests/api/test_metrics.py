"""/metrics: a valid exposition whose numbers are those of the snapshot, and series that clients cannot multiply."""

from dataclasses import replace
from typing import cast

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from quart import Quart

from actors.snapshots import RoomState
from api.text.codec import HfCodec
from runtime.types import RuntimeMode
from tests.api.calling import call
from tests.api.fakes import CHAT, PROBE, FakeDesk, make_app, says, snapshot

pytestmark = pytest.mark.anyio

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def measured(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> Quart:
    return make_app(desk, fresh_codec, anyio_backend, enable_metrics=True)


async def scrape(app: Quart) -> Samples:
    reply = await call(app, "GET", "/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(reply.body.decode()))
    assert all(family.name.startswith("troupe_") and family.documentation for family in families)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"troupe_{name}", frozenset(labels.items())]


async def test_it_is_off_unless_it_is_enabled(app: Quart) -> None:
    assert (await call(app, "GET", "/metrics")).status == 404


async def test_the_numbers_are_those_of_status(measured: Quart) -> None:
    samples = await scrape(measured)
    status = (await call(measured, "GET", "/v1/status")).json
    cache = cast("dict[str, float]", status["cache"])
    found = cast("dict[str, dict[str, float]]", status["cache"])["hits"]
    metal = cast("dict[str, float]", status["metal"])
    runtime = cast("dict[str, float]", status["runtime"])
    phases = [value(samples, "scheduler_sequences", phase=phase) for phase in ("queued", "prefill", "generation")]
    assert (phases[0], phases[1] + phases[2]) == (status["num_waiting"], status["num_running"])
    assert value(samples, "server_uptime_seconds") == status["uptime_s"]
    assert value(samples, "engine_steps_total") == status["steps_executed"]
    assert value(samples, "server_requests_closed_total") == status["total_requests_processed"]
    assert value(samples, "server_prompt_tokens_total") == status["total_prompt_tokens"]
    assert value(samples, "server_completion_tokens_total") == status["total_completion_tokens"]
    assert value(samples, "server_requests_open") == runtime["active_concurrency"]
    assert value(samples, "server_requests_open_peak") == runtime["peak_concurrency"]
    assert value(samples, "cache_entries") == cache["entries"]
    assert value(samples, "cache_stored_bytes") == cache["memory_mb"] * 2**20
    assert value(samples, "cache_info", strategy=str(cache["type"])) == 1
    assert value(samples, "cache_disk_entries") == cache["disk_entries"]
    assert value(samples, "cache_disk_bytes") == cache["disk_mb"] * 2**20
    assert value(samples, "cache_evictions_total") == cache["evictions"]
    assert value(samples, "cache_pieces") == 9
    hits = {kind: value(samples, "cache_hits_total", type=kind) for kind in ("exact", "prefix", "supersequence", "lcp")}
    lookups = value(samples, "cache_lookups_total")
    assert hits | {"miss": lookups - sum(hits.values())} == found
    assert sum(hits.values()) / lookups == cache["hit_rate"]
    assert value(samples, "scheduler_preemptions_total") == status["num_preemptions"] == 2
    memory = cast("dict[str, float]", status["memory"])
    assert value(samples, "engine_memory_pressure", state=str(memory["pressure"])) == 1
    assert value(samples, "engine_memory_resident_bytes") == memory["engine_resident_gb"] * 1e9
    assert value(samples, "engine_system_memory_used_ratio") == memory["system_used_percent"] / 100
    for kind in ("active", "peak", "cache"):
        assert value(samples, f"engine_memory_{kind}_bytes") == metal[f"{kind}_memory_gb"] * 1e9


async def test_a_state_is_one_for_what_is_and_zero_for_what_is_not(measured: Quart, desk: FakeDesk) -> None:
    desk.house = snapshot(RoomState.RESTARTING)
    samples = await scrape(measured)
    states = {state: value(samples, "server_state", state=state) for state in ("loading", "ready", "restarting")}
    assert states == {"loading": 0, "ready": 0, "restarting": 1}
    assert value(samples, "server_restarts_total", supervisor="engine_room") == 1


async def test_what_the_probes_found_has_series_where_there_are_probes(measured: Quart, desk: FakeDesk) -> None:
    assert not [name for name, _ in await scrape(measured) if name.startswith("troupe_divergence")]
    house = snapshot()
    assert house.scheduler
    serial = replace(house.scheduler, mode=RuntimeMode.SIMPLE, serialised=True)
    desk.house = replace(house, scheduler=serial, probe=PROBE)
    samples = await scrape(measured)
    assert value(samples, "divergence_rounds_total") == 3
    assert value(samples, "divergence_rounds_given_up_total") == 1
    assert value(samples, "divergence_diverged") == 1
    assert value(samples, "divergence_threshold_ratio") == 0.95
    agreement = {cause: value(samples, "divergence_agreement_ratio", cause=cause) for cause in ("company", "cache")}
    assert agreement == {"company": 0.75, "cache": 1.0}
    assert value(samples, "scheduler_serialized") == 1
    modes = {mode: value(samples, "scheduler_mode", mode=mode) for mode in ("simple", "batched")}
    assert modes == {"simple": 1, "batched": 0}


async def test_what_nobody_knows_has_no_series(measured: Quart, desk: FakeDesk) -> None:
    closed = snapshot(RoomState.LOADING)
    desk.house = replace(
        closed, facts=None, admitter=None, scheduler=None, prefill=None, decode=None, cache=None, monitor=None
    )
    names = {name for name, _ in await scrape(measured)}
    assert "troupe_server_uptime_seconds" in names
    assert not [name for name in names if name.startswith(("troupe_scheduler", "troupe_cache", "troupe_engine_memory"))]


async def test_calls_are_counted_at_their_end_with_their_tokens(measured: Quart, desk: FakeDesk) -> None:
    desk.script = says("Hello world.", cached_tokens=2)
    route = "/v1/chat/completions"
    costs = []
    for stream in (False, True):
        await call(measured, "POST", route, CHAT | {"stream": stream})
        costs.append(len(desk.admitted[-1].prompt_ids))
    usage = cast("dict[str, int]", (await call(measured, "POST", route, CHAT)).json["usage"])
    await call(measured, "POST", route, {})
    samples = await scrape(measured)
    assert value(samples, "request_duration_seconds_count", method="POST", route=route, status="200") == 3
    assert value(samples, "request_duration_seconds_count", method="POST", route=route, status="400") == 1
    assert value(samples, "request_first_byte_seconds_count", method="POST", route=route) == 4
    assert value(samples, "request_prompt_tokens_total", route=route) == 3 * usage["prompt_tokens"]
    assert value(samples, "request_cached_tokens_total", route=route) == 3 * 2
    assert value(samples, "request_completion_tokens_total", route=route) == 3 * usage["completion_tokens"]
    assert costs == [usage["prompt_tokens"]] * 2


async def test_clients_cannot_make_up_series(measured: Quart) -> None:
    for number in range(20):
        await call(measured, "GET", f"/v1/models/made-up-{number}")
        await call(measured, "GET", f"/nowhere/{number}")
        await call(measured, f"VERB{number}", "/v1/models")
    counted = {
        labels: number
        for (name, labels), number in (await scrape(measured)).items()
        if name == "troupe_request_duration_seconds_count"
    }
    assert {tuple(sorted(dict(labels).values())): number for labels, number in counted.items()} == {
        ("/v1/models/<path:model_id>", "404", "GET"): 20,
        ("404", "GET", "none"): 20,
        ("405", "none", "other"): 20,
    }


async def test_who_asks_for_openmetrics_gets_it(measured: Quart) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    reply = await call(measured, "GET", "/metrics", headers=accept)
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = parse_openmetrics(reply.body.decode())  # type: ignore[no-untyped-call]
    assert {family.name for family in families} >= {"troupe_server", "troupe_engine_steps"}


async def test_two_houses_in_one_process_do_not_share_series(
    measured: Quart, desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    other = make_app(desk, fresh_codec, anyio_backend, enable_metrics=True)
    await call(measured, "GET", "/health")
    names = {name for name, _ in await scrape(other)}
    assert "troupe_request_duration_seconds_count" not in names
