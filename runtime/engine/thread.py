"""ThreadHost: the engine in one dedicated thread of this process, where its arrays and streams stay."""

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

import anyio
import anyio.abc

from runtime.engine.border import attempt, facts_of, raise_if_failed, start
from runtime.engine.commands import Command, CommandFailed, LoadModel, Result
from runtime.engine.host import Deliver, Engine, Factory, Vitals
from runtime.errors import EngineFault
from runtime.types import ModelFacts

EXIT_GRACE_S = 30.0
"""How long a closing host waits for the command under way; a thread cannot be stopped from outside."""


class ThreadHost:
    """A `Host`. Results cross from the thread to the event loop over a socket pair, so that neither side waits
    for the other and no particular event loop is needed."""

    def __init__(self, factory: Factory, load: LoadModel, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._factory = factory
        self._load = load
        self._clock = clock
        self._commands: SimpleQueue[tuple[Command, Deliver] | None] = SimpleQueue()
        self._results: deque[tuple[Result, float, Deliver]] = deque()
        self._ended = False
        self._submitted = self._answered = 0
        self._heard_at, self._doing = clock(), "starting"

    def submit(self, command: Command, deliver: Deliver) -> None:
        if self._submitted == self._answered:
            self._heard_at = self._clock()
        self._submitted += 1
        self._commands.put((command, deliver))

    def vitals(self) -> Vitals:
        under_way = self._submitted - self._answered
        silent_s = self._clock() - self._heard_at if under_way else 0.0
        return Vitals(os.getpid(), self._doing if under_way else "idle", silent_s, under_way)

    async def run(self, *, task_status: anyio.abc.TaskStatus[ModelFacts] = anyio.TASK_STATUS_IGNORED) -> None:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)
        self.submit(self._load, lambda result, _at: task_status.started(facts_of(result)))
        self._thread = threading.Thread(target=self._work, name="troupe-engine", daemon=True)
        self._thread.start()
        try:
            while True:
                await self._woken()
                self._deliver_all()
        finally:
            await self._close()

    def _deliver_all(self) -> None:
        while self._results:
            result, at, deliver = self._results.popleft()
            self._answered += 1
            raise_if_failed(result)
            deliver(result, at)
        if self._ended:
            raise EngineFault("the engine thread ended")

    async def _woken(self) -> None:
        await anyio.wait_readable(self._here)
        self._here.recv(4096)

    async def _close(self) -> None:
        self._commands.put(None)
        with anyio.move_on_after(EXIT_GRACE_S, shield=True):
            while not self._ended:
                await self._woken()
        if self._ended:
            self._thread.join()  # It only lets go of the engine now; the interpreter must not end under it.
            self._there.close()
        self._here.close()

    # --- the thread ---

    def _work(self) -> None:
        """Make the engine; execute until told to stop, or until a command fails."""
        engine = start(self._factory, self._beat)
        if isinstance(engine, CommandFailed):
            self._answer(engine, lambda _result, _at: None)
        else:
            self._execute_all(engine)
        self._ended = True
        self._wake()

    def _execute_all(self, engine: Engine) -> None:
        while submitted := self._commands.get():
            command, deliver = submitted
            result = attempt(engine, command)
            self._answer(result, deliver)
            if isinstance(result, CommandFailed):
                return

    def _answer(self, result: Result, deliver: Deliver) -> None:
        self._results.append((result, self._clock(), deliver))
        self._wake()

    def _wake(self) -> None:
        try:
            self._there.send(b"!")
        except OSError:
            pass  # Full: the loop is awake already. Closed: it waits no more.

    def _beat(self, doing: str) -> None:
        """Only to be seen: a thread that hangs cannot be stopped from outside."""
        self._heard_at, self._doing = self._clock(), doing
