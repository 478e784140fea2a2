"""What `troupe top` costs the server that it looks at: tokens a second with and without it, in turns. `make soak`."""

import fcntl
import os
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from api.bench.models import make_tiny
from runtime.models.resolve import resolve
from tests.e2e.process import ROOT, ServerProcess

STREAMS, WINDOW_S, TURNS = 16, 8.0, 10
LINES, COLUMNS = 60, 200
SETTLING_S = 2.0
"""A process that starts takes the processor from everyone; what is asked is what it takes while it looks on."""


@contextmanager
def watched(url: str) -> Iterator[None]:
    """The dashboard, in a terminal of its own."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    command = [sys.executable, "cli.py", "top", url]
    process = subprocess.Popen(command, cwd=ROOT, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    threading.Thread(target=_read_all, args=(leader,), daemon=True).start()
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _read_all(leader: int) -> None:
    try:
        while os.read(leader, 1 << 16):
            pass
    except OSError:
        return  # The other end is closed.


class Load:
    """Streams that never end, and how many tokens came of them."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=120, limits=httpx.Limits(max_connections=STREAMS))
        self.tokens = 0
        self._ended = threading.Event()

    def stream(self, number: int) -> None:
        while not self._ended.is_set():
            body = {"prompt": f"{number} {time.monotonic()}", "max_tokens": 400, "temperature": 1, "stream": True}
            with self._client.stream("POST", "/v1/completions", json=body) as response:
                for line in response.iter_lines():
                    self.tokens += line.startswith("data: {")
                    if self._ended.is_set():
                        return

    def end(self) -> None:
        self._ended.set()

    def rate(self) -> float:
        """Tokens a second, from now on for a while."""
        time.sleep(SETTLING_S)
        before, started = self.tokens, time.monotonic()
        time.sleep(WINDOW_S)
        return (self.tokens - before) / (time.monotonic() - started)


def measure(model: Path) -> float:
    """How much is lost, as a fraction."""
    with ServerProcess(str(model), "--log-level", "warning") as server, ThreadPoolExecutor(STREAMS) as pool:
        load = Load(server.url)
        try:
            for number in range(STREAMS):
                pool.submit(load.stream, number)
            load.rate()
            ratios = []
            for turn in range(TURNS):
                ratios.append(_ratio(load, server.url, watched_first=turn % 2 == 1))
        finally:
            load.end()
    lost = 1 - statistics.median(ratios)
    shown = " ".join(f"{ratio:.3f}" for ratio in sorted(ratios))
    print(f"{model.name}, {STREAMS} streams: with / without {shown}; median lost {lost:.1%}", flush=True)
    return lost


def _ratio(load: Load, url: str, *, watched_first: bool) -> float:
    rates = {}
    for is_watched in (watched_first, not watched_first):
        if is_watched:
            with watched(url):
                rates[True] = load.rate()
        else:
            rates[False] = load.rate()
    return rates[True] / rates[False]


def main() -> int:
    default = resolve(None, say=print).path
    with tempfile.TemporaryDirectory() as folder:
        measure(make_tiny(default, Path(folder) / "tiny"))
    measure(default)
    return 0


if __name__ == "__main__":
    sys.exit(main())
