"""An engine that works when a test says so, so that mail and results can cross in any order."""

from collections import deque

from runtime.engine import commands as c
from runtime.engine.host import Deliver
from tests.fakes import FakeEngine


class SlowEngine:
    """An EngineRef before a FakeEngine: commands wait until `work`, results until `deliver`. Both go first come, first
    served, as every host promises."""

    def __init__(self, fake: FakeEngine) -> None:
        self.fake = fake
        self.commands: list[c.Command] = []
        """What was submitted since `take`."""
        self.waiting: deque[tuple[c.Command, Deliver]] = deque()
        self.done: deque[tuple[c.Result, Deliver]] = deque()

    def submit(self, command: c.Command, deliver: Deliver) -> None:
        self.commands.append(command)
        self.waiting.append((command, deliver))

    def take(self) -> list[c.Command]:
        """What was submitted since last asked, carried out or not."""
        taken, self.commands = self.commands, []
        return taken

    def work(self) -> None:
        """Carry out the next command."""
        command, deliver = self.waiting.popleft()
        self.done.append((self.fake.execute(command), deliver))

    def deliver(self) -> None:
        """Tell the next result."""
        result, deliver = self.done.popleft()
        deliver(result, 0.0)

    def catch_up(self) -> None:
        """Carry out and answer everything, with what comes of it."""
        while self.waiting or self.done:
            if self.waiting:
                self.work()
            else:
                self.deliver()
