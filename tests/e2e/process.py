"""`python cli.py serve`, or `launch`, as a process of its own, on a free port."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import psutil

ROOT = Path(__file__).resolve().parents[2]
READY = re.compile(r"Troupe serves (\S+) at (http://\S+)/v1")
START_TIMEOUT_S = 120


class ServerProcess:
    """A context manager: ready on entry, terminated on exit. `output()` is what it printed so far."""

    def __init__(
        self,
        *arguments: str,
        command: str = "serve",
        env: dict[str, str] | None = None,
        program: tuple[str, ...] = ("cli.py",),
    ) -> None:
        self._program = program
        self._arguments = command, "--port", "0", *arguments
        self._env = {**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})}
        self._lines: list[str] = []
        self._ready = threading.Event()
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, *self._program, *self._arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self._env, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(START_TIMEOUT_S) or not self.url:
            self.process.kill()
            raise AssertionError(f"the server did not start:\n{self.output()}")
        return self

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self._lines.append(line)
            if found := READY.search(line):
                self.url = found[2]
                self._ready.set()
        self._ready.set()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.wait()
        finally:
            self.process.kill()

    def engine(self) -> psutil.Process:
        """The engine's process, once there is one that lives."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for child in psutil.Process(self.process.pid).children():
                if child.status() != psutil.STATUS_ZOMBIE:
                    return child
            time.sleep(0.01)
        raise AssertionError("there is no engine")

    def wait(self, timeout_s: float = 60) -> int:
        """The exit status, once the process has ended."""
        status = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        assert self.process.stderr
        self.process.stderr.close()
        return status

    def output(self) -> str:
        return "".join(self._lines)
