"""Work that an engine need not wait for, done in a thread of its own."""

import logging
from collections.abc import Callable
from queue import Queue
from threading import Lock, Thread

log = logging.getLogger("troupe.engine")

MOST_WAITING_BYTES = 512 << 20


class Behind:
    """Does one thing after the other, in the order in which they came. The thread ends with the process, whatever is
    left to do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: Queue[tuple[Callable[[], None], int] | None] = Queue()
        self._bytes = 0
        """What all the work that is not done keeps in memory."""
        self._lock = Lock()
        self._late = False
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def has_room(self, nbytes: int) -> bool:
        """Whether work that keeps `nbytes` in memory may come: up to MOST_WAITING_BYTES, and beyond if there is no
        other. Says so in the log when it begins to be late."""
        with self._lock:
            waiting = self._bytes
        room = waiting == 0 or waiting + nbytes <= MOST_WAITING_BYTES
        if waiting == 0:
            self._late = False
        if not room and not self._late:
            self._late = True
            log.warning("%s: %d MiB wait for the disk; what comes now is left out", self._name, waiting >> 20)
        return room

    def do(self, work: Callable[[], None], nbytes: int = 0) -> None:
        with self._lock:
            self._bytes += nbytes
        self._work.put((work, nbytes))

    def flush(self) -> None:
        """Wait until everything is done."""
        self._work.join()

    def close(self) -> None:
        """Do what is left, and end the thread."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while job := self._work.get():
            work, nbytes = job
            work()
            del work, job  # With what they keep in memory.
            with self._lock:
                self._bytes -= nbytes
            self._work.task_done()
