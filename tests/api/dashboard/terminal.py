"""A terminal for tests: a pty with a program of ours in it."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ALTERNATE, BACK = b"\x1b[?1049h", b"\x1b[?1049l"
HIDDEN, SEEN = b"\x1b[?25l", b"\x1b[?25h"


class Terminal:
    """A pty, and what a program in it wrote."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self._ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.written = b""
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": "", **(env or {})}
        self.process = subprocess.Popen(
            [sys.executable, "cli.py", *arguments],
            cwd=ROOT,
            env={key: value for key, value in environment.items() if value},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )

    def until(self, pattern: bytes, timeout_s: float = 60) -> None:
        """Read until that has been written."""
        end = time.monotonic() + timeout_s
        while not re.search(pattern, self.written):
            assert time.monotonic() < end, self.written.decode(errors="replace")
            self._read(0.1)

    def _read(self, timeout_s: float) -> None:
        if select.select([self._ours], [], [], timeout_s)[0]:
            self.written += os.read(self._ours, 1 << 16)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def ended(self) -> int:
        """The exit status; what is still to be read is read."""
        end = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < end, self.written.decode(errors="replace")
            self._read(0.05)
        self._read(0.05)
        return self.process.returncode

    def is_as_before(self) -> bool:
        return (
            termios.tcgetattr(self._theirs) == self.before
            and self.written.rfind(BACK) > self.written.rfind(ALTERNATE) >= 0
            and self.written.rfind(SEEN) > self.written.rfind(HIDDEN) >= 0
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@contextmanager
def terminal(*arguments: str, env: dict[str, str] | None = None) -> Iterator[Terminal]:
    found = Terminal(*arguments, env=env)
    try:
        yield found
    finally:
        found.close()
