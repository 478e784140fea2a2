"""`serve --dashboard`: the dashboard of a server in the server's own terminal, as a process of its own."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from anyio.abc import Process

from runtime import children
from runtime.errors import SettingsError
from runtime.settings import Settings

API_KEY = "TROUPE_API_KEY"
"""The variable that `top` reads the key from: command lines can be read by everybody."""
ENDING_S = 3.0
"""How long the dashboard has to give the terminal back when the server ends."""
LARGEST_LOG = 16 << 20
"""Bytes; a log that is larger when the server starts is put aside first."""


def check_terminal() -> None:
    """Raises:
    SettingsError: this is no terminal, where nobody could see a dashboard or leave it.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        raise SettingsError("--dashboard needs a terminal as standard input, output and error; see also: troupe top")


@contextmanager
def log_aside(path: Path) -> Iterator[None]:
    """What this process and its children write to standard error goes to `path`, and not through the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LARGEST_LOG:
        path.replace(path.with_name(path.name + ".1"))
    print(f"The log is written to {path}", file=sys.stderr, flush=True)
    before = os.dup(2)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    os.close(log)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
        print(f"The log is in {path}", file=sys.stderr, flush=True)


async def keep(listener: socket.socket, settings: Settings, draining: Callable[[], bool]) -> None:
    """Show the dashboard of the server that listens there. When it is quit, drain this process as SIGTERM does, unless
    it drains already; when this is cancelled, or this process ends in whatever way, the dashboard ends."""
    url = url_of(listener)
    reading, writing = os.pipe()
    try:
        process = await _start(url, settings.api_key, reading)
        try:
            status = await process.wait()
        finally:
            os.close(writing)
            await _end(process)
    finally:
        os.close(reading)
    if status != 0:
        print(f"The dashboard ended with status {status}. The server goes on: troupe top {url}", flush=True)
    elif not draining():
        print(f"Draining: open requests have {settings.drain_timeout:g} s to end; Ctrl-C ends them now", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)


async def _start(url: str, api_key: str | None, reading: int) -> Process:
    """It inherits the terminal; the pipe tells it when this process has gone."""
    return await anyio.open_process(
        [sys.executable, "-m", "cli", "top", url, "--until-closed", str(reading)],
        stdin=None,
        stdout=None,
        stderr=None,
        pass_fds=(reading,),
        env=children.environment({API_KEY: api_key} if api_key else None),
    )


async def _end(process: Process) -> None:
    with anyio.CancelScope(shield=True):
        with anyio.move_on_after(ENDING_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


def url_of(listener: socket.socket) -> str:
    """Where a server is reached from the machine that it runs on."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
