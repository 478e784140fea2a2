"""docs/guides/operations.md names series, settings and fields that there are."""

import re
from pathlib import Path

import pytest

from api.text.codec import HfCodec
from runtime import log, settings
from runtime.settings import Settings
from tests.api.calling import call
from tests.api.fakes import FakeDesk, make_app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "operations.md").read_text()
OTHERS = {"--dry-run", "--now", "--reset", "--url"}
"""Flags of other commands than `serve`."""


@pytest.mark.anyio
async def test_every_series_to_watch_is_there(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, enable_metrics=True)
    await call(app, "GET", "/health")
    shown = (await call(app, "GET", "/metrics")).body.decode()
    named = re.findall(r"`(troupe_\w+)(?:\{(\w+=)(\"\w+\"\})?)?", PAGE)
    assert len(named) >= 6
    for series, label, value in named:
        assert re.search(f"^{series}{{.*{label}{value}" if label else f"^{series}[ {{]", shown, re.MULTILINE), series


def test_every_flag_and_variable_is_there() -> None:
    flags = {
        settings.flag(name) for each, field in Settings.model_fields.items() for name in settings.names(each, field)
    }
    variables = {f"TROUPE_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) <= flags | OTHERS
    assert set(re.findall(r"\bTROUPE_\w+", PAGE)) <= variables


def test_every_field_of_a_line_is_told() -> None:
    told = set(re.findall(r"`(\w+)`", PAGE.partition("| field | is |")[2].partition("\n\n")[0]))
    assert told == {*log.FIELDS, "time", "level", "logger", "message", "exception", "traceback", "deadline"}
