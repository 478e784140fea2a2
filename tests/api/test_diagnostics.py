"""The `diagnostics` of a reply: as much as was asked for, whole and streamed, and nothing of other requests."""

from dataclasses import replace
from typing import cast

import orjson
import pytest
from quart import Quart

from actors import messages as m
from actors.snapshots import RoomState
from api import diagnostics
from api.exchange import Cost
from tests.api.calling import call
from tests.api.fakes import CHAT, PROBE, PROMPT, VITALS, FakeDesk, Script, events, says, snapshot

Json = dict[str, object]

COST = Cost(prompt_tokens=9, cached_tokens=4, completion_tokens=3, thinking_tokens=0, longest=12, requeued=1)


def test_basic_diagnostics_say_how_full_the_context_is() -> None:
    assert diagnostics.basic(used_tokens=50, context_tokens=200) == {
        "level": "basic",
        "context": {
            "used_tokens": 50,
            "limit_tokens": 200,
            "remaining_tokens": 150,
            "used_fraction": 0.25,
        },
        "visual": {"images": 0},
    }


def test_deep_diagnostics_say_how_reliably_it_was_made() -> None:
    house = replace(snapshot(), probe=PROBE, engine=VITALS)
    assert diagnostics.runtime(house, COST) == {
        "room": "ready",
        "restarts": {"engine_room": 1},
        "mode": "batched",
        "serialized": False,
        "active_requests": 2,
        "waiting_requests": 1,
        "memory_pressure": "normal",
        "engine_silent_s": 0.25,
        "cached_tokens": 4,
        "requeued": 1,
        "divergence": {"diverged": True, "rounds": 3, "agreement": {"company": 0.75, "cache": 1.0}},
    }


def test_what_does_not_live_now_is_null() -> None:
    house = replace(snapshot(RoomState.RESTARTING), scheduler=None, monitor=None, admitter=None)
    told = diagnostics.runtime(house, COST)
    nothing = {"mode": None, "memory_pressure": None, "engine_silent_s": None, "divergence": None}
    assert {name: told[name] for name in nothing} == nothing
    assert (told["room"], told["active_requests"], told["waiting_requests"]) == ("restarting", 0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize(("route", "asked"), [("/v1/chat/completions", CHAT), ("/v1/completions", PROMPT)])
async def test_deep_is_told_with_the_reply_and_with_the_last_chunk(
    app: Quart, desk: FakeDesk, route: str, asked: Json
) -> None:
    desk.script = says("Hello world.", cached_tokens=3)
    deep = asked | {"include_diagnostics": True, "diagnostics_level": "deep"}
    whole = cast("Json", (await call(app, "POST", route, deep)).json["diagnostics"])
    basic = asked | {"include_diagnostics": True}
    less = cast("Json", (await call(app, "POST", route, basic)).json["diagnostics"])
    assert (whole["level"], less["level"]) == ("deep", "basic")
    assert whole.keys() - less.keys() == {"runtime"}
    assert whole["context"] == less["context"]
    assert cast("Json", whole["runtime"])["cached_tokens"] == 3
    *_, last, done = events((await call(app, "POST", route, deep | {"stream": True})).body)
    assert (orjson.loads(last)["diagnostics"], done) == (whole, b"[DONE]")


@pytest.mark.anyio
async def test_a_sequence_that_went_back_in_line_is_counted(app: Quart, desk: FakeDesk) -> None:
    desk.script = _staged(3)
    deep = CHAT | {"include_diagnostics": True, "diagnostics_level": "deep"}
    told = cast("dict[str, Json]", (await call(app, "POST", "/v1/chat/completions", deep)).json["diagnostics"])
    assert told["runtime"]["requeued"] == 2


def _staged(times: int) -> Script:
    """Leaves the line so many times, then answers."""

    def script(request: m.Request) -> list[m.Reply]:
        return [*(m.Staged(request.request_id, 0) for _ in range(times)), *says("Hello.")(request)]

    return script
