"""The servers under test, as processes of their own on free ports."""

import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from api.bench.client import Target
from api.bench.scenarios import BenchError
from runtime import children

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 10.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def troupe(model: Path, *flags: str) -> Iterator[Target]:
    """This server, with its own defaults."""
    port = free_port()
    command = [sys.executable, "-m", "cli", "serve", str(model), "--port", str(port), *flags]
    with _running("Troupe", command, port, "/health") as target:
        yield target


@contextmanager
def mlx_lm(model: Path) -> Iterator[Target]:
    """mlx_lm.server, with its own defaults."""
    port = free_port()
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(model), "--port", str(port)]
    with _running("mlx_lm.server", command, port, "/v1/models", model=str(model)) as target:
        yield target


@contextmanager
def _running(name: str, command: list[str], port: int, ready: str, *, model: str = "default") -> Iterator[Target]:
    with tempfile.TemporaryFile() as log:
        environment = children.environment({"HF_HUB_OFFLINE": "1"})
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        target = Target(f"http://127.0.0.1:{port}", model)
        target.name = name
        try:
            anyio.run(_until_ready, target, ready, process)
            yield target
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read()[-2000:].decode(errors="replace"))
            raise
        finally:
            _stop(process)


async def _until_ready(target: Target, path: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise BenchError(f"{target.name} ended with status {process.returncode}")
        try:
            if (await target.get(path))[1] == 200:
                await target.stream("Hello", 2)  # whatever is loaded late is loaded now
                return
        except OSError:
            pass
        await anyio.sleep(0.1)
    raise BenchError(f"{target.name} was not ready after {START_TIMEOUT_S:g} s")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def raw_loop(model: Path, rows: int, steps: int) -> float:
    """Tokens per second of forward and argmax with no server around them."""
    command = [sys.executable, "-m", "runtime.mlx.rawloop", str(model), str(rows), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=children.environment())
    return float(re.findall(r"[\d.]+", done.stdout)[-1])
