"""A host is made as the settings say."""

from pathlib import Path

import pytest

from runtime.engine.hosts import make_host
from runtime.engine.thread import ThreadHost
from runtime.settings import Settings


def test_a_cache_folder_in_the_operators_home_is_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    host = make_host(Settings(engine="thread", cache_dir="~/cache"), Path("model"))
    assert isinstance(host, ThreadHost)
    assert host._load.cache_dir == str(tmp_path / "cache")
