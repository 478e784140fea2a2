"""ProcessHost: the engine in a child process of its own, whose death cannot take the server down."""

import logging
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

import anyio
import anyio.abc

from runtime import children
from runtime.engine import wire
from runtime.engine.border import facts_of, raise_if_failed
from runtime.engine.commands import Alive, Command, LoadModel, Result
from runtime.engine.host import Deliver, Vitals
from runtime.errors import EngineFault
from runtime.types import ModelFacts

log = logging.getLogger("troupe.engine")

TERM_GRACE_S = 2.0
"""How long the child has to end after SIGTERM, before SIGKILL."""
REAP_S = 1.0
"""How long the child's exit status may take to come once its socket is closed."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the child may be silent, in seconds, with a command under way."""

    loading_s: float
    """While it starts and loads the model."""
    working_s: float
    """From then on."""


class ProcessHost:
    """A `Host`. Commands and results are msgpack frames over a socket pair (see wire.py)."""

    def __init__(
        self,
        factory: str,
        load: LoadModel,
        patience: Patience,
        *,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._factory = factory
        self._load = load
        self._patience = patience
        self._environment = children.environment(environment)
        self._clock = clock
        self._pid = 0
        self._numbers = 0
        self._under_way: deque[tuple[int, Deliver]] = deque()
        """Submitted and not answered, oldest first."""
        self._outgoing: deque[bytes] = deque()
        self._something_to_send = anyio.Event()
        self._heard_at = clock()
        self._doing = "starting"
        self._allowed_s = patience.loading_s

    def submit(self, command: Command, deliver: Deliver) -> None:
        if not self._under_way:
            self._heard_at = self._clock()
        self._numbers += 1
        self._under_way.append((self._numbers, deliver))
        self._outgoing.append(wire.encode(wire.Frame(self._numbers, command)))
        self._something_to_send.set()

    def vitals(self) -> Vitals:
        silent_s = self._clock() - self._heard_at if self._under_way else 0.0
        return Vitals(self._pid, self._doing if self._under_way else "idle", silent_s, len(self._under_way))

    async def run(self, *, task_status: anyio.abc.TaskStatus[ModelFacts] = anyio.TASK_STATUS_IGNORED) -> None:
        ours, theirs = socket.socketpair()
        process = await self._spawn(theirs)
        self._pid = process.pid
        theirs.close()
        self.submit(self._load, lambda result, _at: self._loaded(process.pid, result, task_status))
        try:
            connection = await anyio.abc.UNIXSocketStream.from_socket(ours)
            async with connection, anyio.create_task_group() as group:
                group.start_soon(self._send, connection)
                group.start_soon(self._watch)
                await self._receive(connection)
                raise EngineFault(await _epitaph(process))
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)

    async def _spawn(self, connection: socket.socket) -> anyio.abc.Process:
        command = [sys.executable, "-m", "runtime.engine.child", str(connection.fileno()), self._factory]
        return await anyio.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
            env=self._environment,
            pass_fds=(connection.fileno(),),
        )

    def _loaded(self, pid: int, result: Result, task_status: anyio.abc.TaskStatus[ModelFacts]) -> None:
        facts = facts_of(result)
        self._allowed_s = self._patience.working_s
        log.info("engine process %d is ready", pid)
        task_status.started(facts)

    async def _send(self, connection: anyio.abc.ByteSendStream) -> None:
        while True:
            await self._something_to_send.wait()
            self._something_to_send = anyio.Event()
            frames = b"".join(self._outgoing)
            self._outgoing.clear()
            await connection.send(frames)

    async def _receive(self, connection: anyio.abc.ByteReceiveStream) -> None:
        """Deliver results as they come, until the child closes its end."""
        decoder = wire.Decoder()
        try:
            while True:
                for frame in decoder.feed(await connection.receive()):
                    self._take(frame)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return

    def _take(self, frame: wire.Frame) -> None:
        self._heard_at = self._clock()
        if isinstance(frame.word, Alive):
            self._doing = frame.word.doing
            return
        number, deliver = self._under_way.popleft()
        if number != frame.number or not isinstance(frame.word, Result):
            raise EngineFault(f"the engine answered {frame.word} to command {number}")
        raise_if_failed(frame.word)
        deliver(frame.word, self._heard_at)

    async def _watch(self) -> None:
        """Raise EngineFault once the child has been silent for too long with a command under way."""
        while True:
            silent_s = self._clock() - self._heard_at if self._under_way else -inf
            if silent_s >= self._allowed_s:
                raise EngineFault(f"the engine hangs: nothing heard for {silent_s:.1f} s, last while {self._doing}")
            await anyio.sleep(min(self._allowed_s, self._allowed_s - silent_s))


async def _epitaph(process: anyio.abc.Process) -> str:
    """What the child died of, in one line."""
    with anyio.move_on_after(REAP_S):
        await process.wait()
    status = process.returncode
    if status is None:
        return "the engine process closed its socket"
    if status < 0:
        return f"the engine process was killed by {signal.Signals(-status).name}"
    return f"the engine process ended with status {status}"


async def _end(process: anyio.abc.Process) -> None:
    """SIGTERM, grace, SIGKILL; whatever is left of it is reaped."""
    if process.returncode is None:
        process.terminate()
        with anyio.move_on_after(TERM_GRACE_S):
            await process.wait()
    if process.returncode is None:
        process.kill()
    await process.wait()
    await process.aclose()
