"""A model is kept whole or not at all, whoever is interrupted, killed, or busy with it at the same time."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest

from runtime.errors import ModelError
from runtime.models.store import SCRATCH, keep

FILES = {"config.json": "{}", "model.safetensors": "weights"}


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TROUPE_HOME", str(tmp_path))
    return tmp_path / "models"


def silent(line: str) -> None:
    pass


def whole(scratch: Path) -> Path:
    made = scratch / "made"
    made.mkdir()
    for name, text in FILES.items():
        (made / name).write_text(text)
    return made


def names(models: Path) -> set[str]:
    return {path.name for path in models.iterdir()} - {".lock"}


def test_what_is_built_is_kept_under_its_name_and_nothing_else_is(models: Path) -> None:
    path = keep("llama", whole, say=silent)
    assert path == models / "llama"
    assert {file.name: file.read_text() for file in path.iterdir()} == FILES
    assert names(models) == {"llama"}


def test_what_is_there_is_not_built_again(models: Path) -> None:
    keep("llama", whole, say=silent)

    def never(scratch: Path) -> Path:
        raise AssertionError

    assert keep("llama", never, say=silent) == models / "llama"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), ModelError("broken"), SystemExit(1)])
def test_an_interrupted_build_leaves_nothing(models: Path, interruption: BaseException) -> None:
    def interrupted(scratch: Path) -> Path:
        whole(scratch)
        raise interruption

    with pytest.raises(type(interruption)):
        keep("llama", interrupted, say=silent)
    assert names(models) == set()
    assert keep("llama", whole, say=silent).is_dir()


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(models: Path) -> None:
    def too_big(scratch: Path) -> Path:
        whole(scratch)
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match=r"^cannot write to .*/models: No space left on device$"):
        keep("llama", too_big, say=silent)
    assert names(models) == set()


def test_what_a_killed_process_left_is_not_taken_for_a_model_and_is_cleared_away(models: Path) -> None:
    """The other process is killed while it holds the lock and its model is written, but not yet in place."""
    program = """
import sys
from runtime.models.store import keep
def build(scratch):
    (scratch / "made").mkdir()
    (scratch / "made" / "config.json").write_text("{}")
    print("building", flush=True)
    sys.stdin.read()
keep("llama", build, say=print)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "building\n"
        other.kill()
    (left,) = names(models)
    assert left.startswith(SCRATCH)

    assert (keep("llama", whole, say=silent) / "model.safetensors").is_file()
    assert names(models) == {"llama"}


class TwoAtOnce:
    """Two threads that want the same model: the first to build goes on when the second has said that it waits."""

    def __init__(self, build: Callable[[Path], Path]) -> None:
        self._build = build
        self._waiting = Event()
        self.found: list[Path | ModelError] = []
        self.builds = 0
        threads = [Thread(target=self._one), Thread(target=self._one)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

    def _one(self) -> None:
        try:
            self.found.append(keep("llama", self._wait_and_build, say=lambda line: self._waiting.set()))
        except ModelError as error:
            self.found.append(error)

    def _wait_and_build(self, scratch: Path) -> Path:
        self.builds += 1
        assert self._waiting.wait(10)
        return self._build(scratch)


def test_two_at_once_build_once_and_both_get_the_model(models: Path) -> None:
    both = TwoAtOnce(whole)
    assert both.found == [models / "llama"] * 2
    assert both.builds == 1


def test_who_waited_for_a_build_that_fails_builds_itself(models: Path) -> None:
    failures = [ModelError("broken")]

    def failing_once(scratch: Path) -> Path:
        if failures:
            raise failures.pop()
        return whole(scratch)

    both = TwoAtOnce(failing_once)
    assert {str(item) for item in both.found} == {"broken", str(models / "llama")}
    assert both.builds == 2
    assert names(models) == {"llama"}
