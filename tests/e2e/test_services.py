"""The commands of the service files, run as their managers run them: until ready, through a drain, to status 0."""

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import orjson
import pytest

from tests.ops.units import PLIST, UNIT, filled, of_unit, plist, unit

START_TIMEOUT_S = 120
SECRET = "xyzzy-plugh"
KEY = "s3cret-k3y"
ADDRESS = re.compile(r"at (http://[\d.:]+)/v1")


@contextmanager
def managed(
    command: Sequence[str], folder: str, environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The process; killed in the end if it still runs."""
    everything = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    with (
        log.open("wb") as written,
        subprocess.Popen(command, cwd=folder, env=everything, stderr=written, stdout=written) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def notifications(folder: Path) -> Iterator[socket.socket]:
    """What systemd listens to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(folder / "notify"))
        listener.settimeout(0.1)
        yield listener


def heard(listener: socket.socket, process: subprocess.Popen[bytes], log: Path) -> bytes:
    """What the process says next to systemd."""
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(TimeoutError):
            return listener.recv(100)
    raise AssertionError(f"nothing was heard:\n{log.read_text()}")


def stream_through_a_drain(process: subprocess.Popen[bytes], url: str, headers: Mapping[str, str]) -> str:
    """The last line of a stream that is under way when SIGTERM comes."""
    body = {"model": "default", "prompt": SECRET, "max_tokens": 400, "temperature": 0, "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, headers=headers, timeout=60) as stream:
        lines = stream.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        return [line for line in lines if line][-1]


def test_the_units_command_is_ready_drains_and_ends(tiny_model: Path, tmp_path: Path) -> None:
    """With the log as JSON: every line of it is an object, and the key and the prompt are in none."""
    text = filled(UNIT, tmp_path)
    given = {
        "TROUPE_MODEL": str(tiny_model),
        "TROUPE_PORT": "0",
        "TROUPE_API_KEY": KEY,
        "TROUPE_LOG_FORMAT": "json",
    }
    environment = dict(
        each.split("=", 1) for key, value in unit(text) if key == "Environment" for each in value.split()
    )
    environment = {name: value.replace("%C", str(tmp_path)) for name, value in environment.items()} | given
    log = tmp_path / "log"
    with notifications(tmp_path) as listener:
        environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        command = shlex.split(of_unit(text, "ExecStart"))
        with managed(command, of_unit(text, "WorkingDirectory"), environment, log) as process:
            assert heard(listener, process, log) == b"READY=1"
            url = ADDRESS.findall(log.read_text())[0]
            assert httpx.get(f"{url}/health").status_code == 200
            assert stream_through_a_drain(process, url, {"Authorization": f"Bearer {KEY}"}) == "data: [DONE]"
            assert listener.recv(100) == b"STOPPING=1"
            assert process.wait(30) == 0, log.read_text()
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    (access,) = [line for line in lines if line.get("route") == "/v1/completions"]
    assert (access["status"], access["completion_tokens"]) == (200, 400)
    assert access["decode_s"] > 0
    assert SECRET not in log.read_text()
    assert KEY not in log.read_text()


def test_the_agents_command_is_ready_drains_and_ends(tiny_model: Path, tmp_path: Path) -> None:
    agent = plist(filled(PLIST, tmp_path))
    environment, command = agent["EnvironmentVariables"], agent["ProgramArguments"]
    assert isinstance(environment, dict)
    assert isinstance(command, list)
    log = Path(str(agent["StandardErrorPath"]))
    log.parent.mkdir(parents=True)
    with notifications(tmp_path) as listener:
        # launchd does not ask to be told; the test does.
        own = {"TROUPE_MODEL": str(tiny_model), "TROUPE_PORT": "0", "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with managed(command, str(agent["WorkingDirectory"]), environment | own, log) as process:
            assert heard(listener, process, log) == b"READY=1"
            url = ADDRESS.findall(log.read_text())[0]
            assert stream_through_a_drain(process, url, {}) == "data: [DONE]"
            assert process.wait(30) == 0
    assert SECRET not in log.read_text()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="abstract sockets are Linux's")
def test_systemd_is_told_through_an_abstract_socket_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime.service_manager import tell

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0troupe-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@troupe-{os.getpid()}")
        tell("READY=1")
        assert listener.recv(100) == b"READY=1"
    tell("READY=1")  # Nobody listens any more: nothing happens.
    monkeypatch.delenv("NOTIFY_SOCKET")
    tell("READY=1")
