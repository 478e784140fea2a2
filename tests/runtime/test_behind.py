"""The thread behind an engine outlives what its work raises, and does not outlive the engine."""

import threading
from pathlib import Path

import pytest

from runtime.engine import commands as c
from runtime.mlx import behind
from runtime.mlx.behind import Behind
from runtime.mlx.engine import MlxEngine
from tests.tiny import make_tiny_llama


def nothing() -> None:
    """Nothing to do meanwhile."""


def test_work_that_raises_is_in_the_log_and_keeps_no_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(behind, "MOST_WAITING_BYTES", 10)
    work, done = Behind("test"), threading.Event()
    work.do({}.popitem, 10)
    work.do(done.set)
    work.flush(nothing)
    assert done.is_set()
    assert "KeyError" in caplog.text
    assert work.has_room(10)
    work.close()


def test_nobody_is_left_behind_by_an_engine_that_is_gone(tmp_path: Path) -> None:
    engine = MlxEngine(lambda _doing: None)
    engine.execute(c.LoadModel(str(make_tiny_llama(tmp_path / "model")), cache_dir=str(tmp_path / "cache")))
    [thread] = [thread for thread in threading.enumerate() if thread.name.startswith(str(tmp_path))]
    del engine
    thread.join(10)
    assert not thread.is_alive()


def test_what_was_given_before_the_end_is_done() -> None:
    opened, done = threading.Event(), threading.Event()
    work = Behind("test")
    work.do(opened.wait)
    work.do(done.set)
    del work
    opened.set()
    assert done.wait(10)
