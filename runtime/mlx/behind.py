"""Work that an engine need not wait for, done in a thread of its own."""

import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Lock, Thread
from weakref import finalize

log = logging.getLogger("troupe.engine")

MOST_WAITING_BYTES = 512 << 20

LOOK_EVERY_S = 0.2
"""How often one who waits for the thread may do something else."""


class Behind:
    """Does one thing after the other, in the order in which they came. The thread ends when it has done what it was
    given and nobody is left who could give it more; or with the process, whatever is left to do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs = _Jobs()
        self._late = False
        self._thread = Thread(target=self._jobs.do_all, name=name, daemon=True)
        self._thread.start()
        self._end = finalize(self, self._jobs.end)  # The thread knows only the jobs, so that it keeps nobody alive.
        self._end.atexit = False

    def has_room(self, nbytes: int) -> bool:
        """Whether work that keeps `nbytes` in memory may come: up to MOST_WAITING_BYTES, and beyond if there is no
        other. Says so in the log when it begins to be late."""
        waiting = self._jobs.nbytes
        room = waiting == 0 or waiting + nbytes <= MOST_WAITING_BYTES
        if waiting == 0:
            self._late = False
        if not room and not self._late:
            self._late = True
            log.warning("%s: %d MiB wait for the disk; what comes now is left out", self._name, waiting >> 20)
        return room

    def do(self, work: Callable[[], object], nbytes: int = 0) -> None:
        self._jobs.put(work, nbytes)

    def flush(self, meanwhile: Callable[[], None]) -> None:
        """Wait until everything is done; call `meanwhile` every now and then."""
        done = Event()
        self.do(done.set)
        while not done.wait(LOOK_EVERY_S):
            meanwhile()

    def close(self) -> None:
        """Do what is left, and end the thread."""
        self._end()
        self._thread.join()


class _Jobs:
    """What is to be done, and how many bytes it all keeps in memory."""

    def __init__(self) -> None:
        # This kind of queue may be put into from a finalizer, wherever that interrupts.
        self._queue: SimpleQueue[tuple[Callable[[], object], int] | None] = SimpleQueue()
        self._lock = Lock()
        self.nbytes = 0

    def put(self, work: Callable[[], object], nbytes: int) -> None:
        self._count(nbytes)
        self._queue.put((work, nbytes))

    def end(self) -> None:
        self._queue.put(None)

    def do_all(self) -> None:
        """Until the end. What a job raises is in the log, and the next one is done."""
        while job := self._queue.get():
            work, nbytes = job
            try:
                work()
            except Exception:
                log.exception("%s raised", work)
            del work, job  # With what they keep in memory.
            self._count(-nbytes)

    def _count(self, nbytes: int) -> None:
        with self._lock:
            self.nbytes += nbytes
