"""What a user may call a model, what becomes of it, and what is said when it cannot be had."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub import errors

from runtime.errors import ModelError
from runtime.mlx import loader
from runtime.models.catalog import ModelKind, list_models
from runtime.models.home import home
from runtime.models.resolve import ModelFiles, resolve
from tests.tiny import make_tiny_llama
from tests.tiny_gguf import make_tiny_gguf


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TROUPE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return make_tiny_llama(tmp_path / "my-llama")


@pytest.fixture
def said() -> list[str]:
    return []


def find(model: str, *, trust_remote_code: bool = False) -> ModelFiles:
    return resolve(model, say=lambda line: None, trust_remote_code=trust_remote_code)


def refusal(model: str) -> str:
    """What is said of `model`, after its name."""
    with pytest.raises(ModelError) as caught:
        find(model)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"model {model}: ")
    return message.removeprefix(f"model {model}: ")


# --- directories


def test_a_directory_is_served_from_where_it_is_under_its_own_name(llama: Path) -> None:
    assert find(str(llama)) == ModelFiles("my-llama", llama)


def test_a_relative_path_and_a_home_directory_are_understood(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(llama)
    monkeypatch.setenv("HOME", str(llama.parent))
    for name in (".", "../my-llama", "~/my-llama/"):
        found = find(name)
        assert found.model_id == "my-llama"
        assert found.path.samefile(llama)


def remove(name: str) -> object:
    return lambda model: (model / name).unlink()


def write(name: str, text: str) -> object:
    return lambda model: (model / name).write_text(text)


def config(**changes: object) -> object:
    return write("config.json", json.dumps({"model_type": "llama"} | changes))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (remove("config.json"), "not a model: there is no config.json in it"),
        (write("config.json", "{"), "config.json cannot be read: Expecting property name"),
        (write("config.json", "[]"), "config.json cannot be read: it is not a JSON object"),
        (config(model_type=None), "config.json names no model_type"),
        (config(model_type="nonsense"), "mlx-lm does not have its architecture, nonsense"),
        (config(model_file="own.py"), "comes with code of its own (model_file in config.json): --trust-remote-code"),
        (remove("model.safetensors"), "no weights: there is no model*.safetensors in it"),
        (remove("tokenizer.json"), "no tokenizer: there is none of tokenizer.json, "),
        (write("model.safetensors.index.json", "{}"), "model.safetensors.index.json is broken: it has no weight_map"),
        (
            write(
                "model.safetensors.index.json", json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2"}})
            ),
            "incomplete: of the weights that its index names, model-2 are missing",
        ),
    ],
)
def test_a_directory_that_is_no_whole_model_is_one_clear_line(llama: Path, damage: object, reason: str) -> None:
    assert callable(damage)
    damage(llama)
    assert refusal(str(llama)).startswith(reason)


def test_code_of_its_own_is_accepted_from_a_model_that_is_trusted(llama: Path) -> None:
    settings = json.loads((llama / "config.json").read_text()) | {"model_file": "own.py"}
    (llama / "config.json").write_text(json.dumps(settings))
    assert find(str(llama), trust_remote_code=True).path == llama


@pytest.mark.parametrize(
    "name", ["/no/such/place", "./nothing", "~/nothing", "~nobody-here/x", "a/b/c", "nothing.gguf", "x" * 300 + "/"]
)
def test_a_path_that_does_not_exist_is_one_clear_line(name: str) -> None:
    assert refusal(name) == "no such file or directory"


# --- GGUF files


def test_a_gguf_file_is_converted_once_whatever_it_is_called(tmp_path: Path, llama: Path, said: list[str]) -> None:
    gguf = make_tiny_gguf(tmp_path / "tiny.Q8_0.gguf", llama, "Q8_0")
    first = resolve(str(gguf), say=said.append)
    assert first.model_id == "tiny.Q8_0"
    assert first.path.parent == tmp_path / "home" / "models"
    assert loader.load(first.path, trust_remote_code=False).vocab_size == 512

    assert resolve(str(gguf), say=said.append) == first
    assert said == ["converting tiny.Q8_0.gguf for MLX"]


def test_a_gguf_file_that_has_changed_is_converted_anew(tmp_path: Path, llama: Path) -> None:
    gguf = make_tiny_gguf(tmp_path / "tiny.gguf", llama)
    first = find(str(gguf))
    assert find(str(make_tiny_gguf(gguf, llama, "Q8_0"))).path != first.path


def test_a_broken_gguf_file_is_one_clear_line_and_leaves_nothing(tmp_path: Path, llama: Path, own_home: Path) -> None:
    gguf = make_tiny_gguf(tmp_path / "tiny.gguf", llama)
    gguf.write_bytes(gguf.read_bytes()[:-100_000])
    assert refusal(str(gguf)) == "the file is cut short: a tensor reaches past its end"
    assert [path.name for path in (own_home / "models").iterdir()] == [".lock"]


def test_a_file_that_is_not_gguf_is_one_clear_line(llama: Path) -> None:
    assert refusal(str(llama / "config.json")) == "not a GGUF file"


def test_a_home_that_cannot_be_written_is_one_clear_line(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TROUPE_HOME", str(tmp_path / "file" / "home"))
    gguf = make_tiny_gguf(tmp_path / "tiny.gguf", llama)
    assert refusal(str(gguf)) == f"cannot write to {tmp_path}/file/home/models: Not a directory"


# --- the Hugging Face Hub


class FakeHub:
    """In the place of snapshot_download: gives a directory, or raises."""

    def __init__(self, gives: Path | Exception) -> None:
        self.gives = gives
        self.asked: list[list[str]] = []

    def __call__(self, repo_id: str, *, allow_patterns: list[str]) -> str:
        self.asked.append(allow_patterns)
        if isinstance(self.gives, Exception):
            raise self.gives
        return str(self.gives)


def put(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    return hub


def test_a_repository_is_fetched_by_its_id_without_its_code(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = put(FakeHub(llama), monkeypatch)
    assert find("someone/my-llama") == ModelFiles("someone/my-llama", llama)
    assert "model*.safetensors" in hub.asked[-1]
    assert not any("*.py" in patterns for patterns in hub.asked)

    find("someone/my-llama", trust_remote_code=True)
    assert "*.py" in hub.asked[-1]


def test_weights_are_not_fetched_for_a_model_that_cannot_be_served(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (llama / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    hub = put(FakeHub(llama), monkeypatch)
    assert refusal("someone/nonsense") == "mlx-lm does not have its architecture, nonsense"
    assert not any("model*.safetensors" in patterns for patterns in hub.asked)


def answer(status: int) -> Any:
    """The library's errors want an httpx2 response from its version 2.0 on, and read the same things of it."""
    return httpx.Response(status, request=httpx.Request("GET", "https://hub.test/api"))


@pytest.mark.parametrize(
    "error, reason",
    [
        (errors.RepositoryNotFoundError("404", response=answer(404)), "neither a file or directory that exists nor"),
        (errors.GatedRepoError("403", response=answer(403)), "gated: accept its terms"),
        (errors.LocalEntryNotFoundError("none"), "not in the Hugging Face cache, and the Hub cannot be reached"),
        (errors.OfflineModeIsEnabled("off"), "not in the Hugging Face cache, and the Hub cannot be reached"),
        (
            errors.HfHubHTTPError("500\nserver", response=answer(500)),
            "cannot be fetched from the Hugging Face Hub: 500",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "cannot be kept: the disk is full"),
        (TimeoutError(), "cannot be fetched from the Hugging Face Hub: TimeoutError"),
    ],
)
def test_what_the_hub_refuses_is_one_clear_line(error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(FakeHub(error), monkeypatch)
    assert refusal("someone/something").startswith(reason)


@pytest.mark.parametrize("name", ["a b", "someone/some--thing", "someone/", "ünï/cöde"])
def test_a_name_that_no_repository_can_have_is_one_clear_line(name: str) -> None:
    assert refusal(name) in (
        "neither a file or directory that exists nor the id of a Hugging Face repository",
        "no such file or directory",
    )


def test_offline_a_repository_comes_from_the_cache_or_not_at_all(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real library, in its own layout of the cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refusal("someone/my-llama") == "not in the Hugging Face cache, and the Hub cannot be reached"
    cached = cache_as_the_hub_does(tmp_path / "hub", "someone/my-llama", llama)
    assert find("someone/my-llama") == ModelFiles("someone/my-llama", cached)


def cache_as_the_hub_does(cache: Path, repo_id: str, files: Path) -> Path:
    repo, commit = cache / f"models--{repo_id.replace('/', '--')}", "c" * 40
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for file in files.iterdir():
        blob = repo / "blobs" / file.name
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(blob)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    return snapshot


# --- the catalog


def test_the_catalog_lists_what_can_be_served_without_fetching(
    tmp_path: Path, llama: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list_models() == ()
    gguf = find(str(make_tiny_gguf(tmp_path / "tiny.gguf", llama)))
    (own_home / "models" / ".scratch-left-over").mkdir()
    hub = cache_as_the_hub_does(tmp_path / "hub", "someone/my-llama", llama)
    (llama / "model.safetensors").unlink()
    cache_as_the_hub_does(tmp_path / "hub", "someone/without-weights", llama)

    listed = {model.name: model for model in list_models()}
    assert set(listed) == {"tiny", "someone/my-llama"}
    assert (listed["tiny"].kind, listed["tiny"].path) == (ModelKind.GGUF, gguf.path)
    assert (listed["someone/my-llama"].kind, listed["someone/my-llama"].path) == (ModelKind.HUB, hub)
    assert listed["tiny"].bytes > 400_000


def test_listing_loads_no_mlx(tmp_path: Path) -> None:
    program = (
        "import sys, runtime.models.catalog as c, runtime.models.resolve; c.list_models(); print('mlx' in sys.modules)"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- home


def test_home_is_where_the_user_says_or_in_the_cache_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROUPE_HOME", "/somewhere")
    assert home() == Path("/somewhere")
    monkeypatch.delenv("TROUPE_HOME")
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert home() == Path("/caches/troupe")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert home() == Path("/home/ann/.cache/troupe")
    monkeypatch.setattr("sys.platform", "darwin")
    assert home() == Path("/home/ann/Library/Caches/troupe")


def test_code_for_transformers_is_no_reason_to_refuse_since_nobody_runs_it(llama: Path) -> None:
    (llama / "config.json").write_text(json.dumps({"model_type": "llama", "auto_map": {"AutoModel": "own.Own"}}))
    assert find(str(llama)).path == llama
