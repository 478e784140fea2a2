"""Keeps the last warnings and errors that were logged, for those who watch the house."""

import logging
from collections import deque

from actors.clock import Clock
from actors.snapshots import Trouble

MOST_KEPT = 20
LONGEST_TEXT = 200
"""Characters."""


class Troubles(logging.Handler):
    """To be put on the logger "troupe": what is said below it comes here, from any thread.

    Tracebacks are left out. An engine in a child process logs in that process, and is not heard here.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._kept: deque[Trouble] = deque(maxlen=MOST_KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it. One that says what the last one said takes its place: it is there once, with its last time."""
        try:
            trouble = Trouble(self._clock(), record.levelname.lower(), _who(record), _line(record.getMessage()))
        except Exception:  # As every handler: what is wrong with a log line is not its speaker's trouble.
            self.handleError(record)
            return
        if self._kept and _says(self._kept[-1]) == _says(trouble):
            self._kept.pop()
        self._kept.append(trouble)

    def recent(self) -> tuple[Trouble, ...]:
        """The last ones, oldest first."""
        self.acquire()
        try:
            return tuple(self._kept)
        finally:
            self.release()


def _who(record: logging.LogRecord) -> str:
    return record.name.rpartition(".")[2]


def _line(text: str) -> str:
    """One line, without what could steer a terminal."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 1] + "…"


def _says(trouble: Trouble) -> tuple[str, str, str]:
    return trouble.level, trouble.who, trouble.text
