"""The engine's own process: takes commands from a socket, executes them one by one, answers in order.

`python -m runtime.engine.child FD MODULE:FACTORY`; FD is a connected socket, FACTORY makes the engine. It ends when
the socket is closed at the other end, however busy it is: no orphan outlives its parent.
"""

import os
import signal
import socket
import sys
import threading
import time
from queue import SimpleQueue

from runtime import log
from runtime.engine import wire
from runtime.engine.border import attempt, factory_named, start
from runtime.engine.commands import Alive, Command, CommandFailed
from runtime.engine.host import Factory

BEAT_EVERY_S = 0.2
"""Heartbeats closer together than this are not sent."""


class Child:
    """Both ends of the work: a thread that reads, and the main thread, to which the engine and its arrays belong."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._commands: SimpleQueue[wire.Frame] = SimpleQueue()
        self._sent_at = 0.0

    def run(self, factory: Factory) -> int:
        """Execute commands until one fails; the exit status."""
        threading.Thread(target=self._read, daemon=True).start()
        self.beat("starting")
        engine = start(factory, self.beat)
        while True:
            frame = self._commands.get()
            result = engine if isinstance(engine, CommandFailed) else attempt(engine, _command(frame))
            self._send(wire.Frame(frame.number, result))
            if isinstance(result, CommandFailed):
                return 1

    def beat(self, doing: str) -> None:
        """Tell the host that the engine is at work, and what on."""
        if time.monotonic() - self._sent_at >= BEAT_EVERY_S:
            self._send(wire.Frame(-1, Alive(doing)))

    def _send(self, frame: wire.Frame) -> None:
        self._socket.sendall(wire.encode(frame))
        self._sent_at = time.monotonic()

    def _read(self) -> None:
        decoder = wire.Decoder()
        try:
            while data := self._socket.recv(1 << 16):
                for frame in decoder.feed(data):
                    self._commands.put(frame)
        finally:
            # The parent is gone, or wants no more, or talks nonsense. Whatever the main thread is at: no orphans.
            os._exit(0)


def _command(frame: wire.Frame) -> Command:
    if not isinstance(frame.word, Command):
        raise TypeError(f"{frame.word} is no command")
    return frame.word


def main() -> int:
    descriptor, factory = sys.argv[1:3]
    # Ctrl-C in a terminal reaches the whole group; when to end is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log.configure_child(os.environ)
    return Child(socket.socket(fileno=int(descriptor))).run(factory_named(factory))


if __name__ == "__main__":
    sys.exit(main())
