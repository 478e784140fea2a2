"""GET /health/diagnostics through the application: who may ask, and each check failing by its cause."""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import anyio
import pytest
from quart import Quart
from quart_trio import QuartTrio

from actors.snapshots import HouseSnapshot, MonitorSnapshot, ProbeSnapshot, RoomState, Tally
from api.app import create_app
from api.context import ApiContext
from api.health import installed, report
from api.health.papers import ModelPapers, read_papers
from api.text.codec import HfCodec
from api.text.turn_trial import turn_ends
from runtime.settings import Settings
from runtime.types import DivergenceCause, PressureLevel
from tests.api.calling import call
from tests.api.fakes import API_FACTS, MEMORY, FakeDesk, snapshot
from tests.tiny import CHAT_TEMPLATE, make_tiny_llama

pytestmark = pytest.mark.anyio

ROUTE = "/health/diagnostics"
Json = dict[str, object]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_llama(tmp_path / "model")


def served(model: Path, backend: str, house: HouseSnapshot | None = None, **settings: object) -> Quart:
    context = ApiContext(
        settings=Settings.model_validate(settings),
        desk=FakeDesk(house=house or snapshot()),
        codec=HfCodec(model),
        model_id="tiny/llama",
        created=1_700_000_000,
        model_dir=model,
    )
    return create_app(context, app_class=QuartTrio if backend == "trio" else Quart)


async def checks_of(app: Quart) -> dict[str, Json]:
    reply = await call(app, "GET", ROUTE)
    assert reply.status == 200
    return cast("dict[str, Json]", reply.json["checks"])


async def test_a_healthy_server_is_ok_but_for_what_nobody_looks_at(model: Path, anyio_backend: str) -> None:
    reply = await call(served(model, anyio_backend), "GET", ROUTE)
    assert (reply.json["model"], reply.json["uptime_s"]) == ("tiny/llama", 4.5)
    checks = cast("dict[str, Json]", reply.json["checks"])
    statuses = {name: check["status"] for name, check in checks.items() if name != "versions"}
    assert statuses == {
        "dtype": "ok",
        "eos_template": "ok",
        "memory_pressure": "ok",
        "batch_invariance": "unknown",
    }
    assert checks["eos_template"]["figures"] == {
        "stop_ids": [2],
        "tokens": {"2": "<|im_end|>"},
        "named_by": {"tokenizer": [2], "config.json": [2], "generation_config.json": [2]},
        "template_writes": {"inside": 2, "end": 2},
        "chat_template": True,
    }


@pytest.mark.parametrize(("room", "status"), [(RoomState.LOADING, "warning"), (RoomState.RESTARTING, "error")])
async def test_a_server_without_an_engine_is_never_fine(
    model: Path, anyio_backend: str, room: RoomState, status: str
) -> None:
    """The facts of a dead engine are still there."""
    reply = await call(served(model, anyio_backend, snapshot(room)), "GET", ROUTE)
    assert (reply.json["status"], reply.json["server"]) == (status, room.value)
    checks = cast("dict[str, Json]", reply.json["checks"])
    assert checks["dtype"]["status"] == "unknown"


async def test_it_is_behind_the_key_and_health_is_not(model: Path, anyio_backend: str) -> None:
    app = served(model, anyio_backend, api_key="s3cret")
    assert (await call(app, "GET", ROUTE)).status == 401
    assert (await call(app, "GET", "/health")).status == 200
    assert (await call(app, "GET", ROUTE, headers={"x-api-key": "s3cret"})).status == 200


async def test_a_server_without_an_engine_still_reports(model: Path, anyio_backend: str) -> None:
    house = replace(snapshot(RoomState.LOADING), facts=None, admitter=None, scheduler=None, monitor=None)
    checks = await checks_of(served(model, anyio_backend, house))
    assert {checks[name]["status"] for name in ("dtype", "memory_pressure", "batch_invariance")} == {"unknown"}


async def test_half_precision_on_the_cpu_is_a_warning(model: Path, anyio_backend: str) -> None:
    house = replace(snapshot(), facts=replace(API_FACTS, device="cpu", dtype="float16"))
    check = (await checks_of(served(model, anyio_backend, house, dtype="float16")))["dtype"]
    assert (check["status"], check["mend"]) == ("warning", "--dtype float32, or --dtype auto")


async def test_memory_at_its_limit_is_an_error(model: Path, anyio_backend: str) -> None:
    house = replace(snapshot(), monitor=MonitorSnapshot(PressureLevel.LIMIT, replace(MEMORY, system_used_fraction=0.9)))
    reply = await call(served(model, anyio_backend, house, memory_action="reject-new"), "GET", ROUTE)
    assert reply.json["status"] == "error"
    assert "503" in str(cast("dict[str, Json]", reply.json["checks"])["memory_pressure"]["detail"])


async def test_answers_that_diverge_are_an_error(model: Path, anyio_backend: str) -> None:
    found = ProbeSnapshot(1, False, True, 0.95, {DivergenceCause.COMPANY: Tally(4, 128, 0.5, 3, 0.2)}, 1.0)
    check = (await checks_of(served(model, anyio_backend, replace(snapshot(), probe=found))))["batch_invariance"]
    assert (check["status"], "--batch-invariant" in str(check["mend"])) == ("error", True)


async def test_a_version_that_nobody_tried_is_a_warning(
    model: Path, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = installed.surroundings()
    monkeypatch.setattr(report, "surroundings", lambda: replace(here, packages={**here.packages, "mlx-lm": "0.31.0"}))
    check = (await checks_of(served(model, anyio_backend)))["versions"]
    assert "mlx-lm 0.31.0 is installed" in str(check["detail"])
    assert str(check["mend"]).startswith("pip install 'mlx-lm")


def templated(model: Path, template: str | None) -> Path:
    file = model / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["chat_template"]
    file.write_text(json.dumps(config | ({"chat_template": template} if template else {})))
    return model


@pytest.mark.parametrize(
    ("template", "status", "said"),
    [
        (CHAT_TEMPLATE.replace("<|im_end|>", "<|endoftext|>"), "error", "ends a turn with <|endoftext|> (0)"),
        (CHAT_TEMPLATE.replace("<|im_end|>", "###"), "error", "ends a turn with #"),
        (CHAT_TEMPLATE.replace("message['content'] }}<|im_end|>", "message['content'] }}"), "error", "ends a turn"),
        ("{{ raise_exception('no talk') }}", "unknown", "no talk"),
        ("{% for message in messages %}{{ message.content }}{% endfor %}", "error", "ends a turn"),
        ("{{ messages[0].content }}", "warning", "writes nothing there"),
        (None, "warning", "no chat template"),
    ],
)
async def test_a_template_whose_turns_end_elsewhere_is_told(
    model: Path, anyio_backend: str, template: str | None, status: str, said: str
) -> None:
    check = (await checks_of(served(templated(model, template), anyio_backend)))["eos_template"]
    assert (check["status"], said in str(check["detail"])) == (status, True), check


@pytest.mark.parametrize(
    "template",
    [
        # The next turn's beginning ends this one (GLM-4).
        "{% for m in messages %}{{ '<|im_end|>' if m.role == 'user' else '<|im_start|>' }}{{ m.content }}{% endfor %}",
        # Only the last turn is ended by what the model writes (gpt-oss).
        "{% for m in messages %}<|im_start|>{{ m.content }}{{ '<|im_end|>' if loop.last and not add_generation_prompt"
        " else '<|endoftext|>' }}{% endfor %}",
        # Blanks before the end.
        "{% for m in messages %}<|im_start|>{{ m.content }}\n <|im_end|>{% endfor %}",
    ],
)
async def test_templates_that_end_turns_in_ways_of_their_own_are_fine(
    model: Path, anyio_backend: str, template: str
) -> None:
    check = (await checks_of(served(templated(model, template), anyio_backend)))["eos_template"]
    assert check["status"] == "ok", check


async def test_the_files_are_read_once(model: Path, anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def read(path: Path) -> ModelPapers:
        reads.append(path)
        return read_papers(path)

    monkeypatch.setattr(report, "read_papers", read)
    app = served(model, anyio_backend)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(checks_of, app)
    assert reads == [model]


def test_what_is_written_is_found_in_the_tokenisers_own_ids(model: Path) -> None:
    codec = HfCodec(model)
    assert turn_ends(codec._hf, model).stop_ids == codec.stop_ids
