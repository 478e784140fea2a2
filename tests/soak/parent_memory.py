"""Ten thousand requests: the server's own memory must be flat after the first thousand. `make soak`."""

import sys
import tempfile
from pathlib import Path

import anyio
import psutil

from api.bench.client import Target
from tests.e2e.process import ServerProcess
from tests.tiny import make_tiny_llama

REQUESTS, BATCH, AT_ONCE, TOLERANCE = 10_000, 1_000, 32, 1.03


async def ask(target: Target, first: int) -> None:
    """A batch of requests, so many at once. Their words are few: the tokeniser remembers up to ten thousand words it
    has met, which is growth of its own, and bounded."""
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def one(number: int) -> None:
        async with limiter:
            result = await target.stream("so " + "again and " * (number % 37) + "word " * (number % 20), 1 + number % 8)
            if result.error:
                raise SystemExit(f"request {number} failed: {result.error}")

    async with anyio.create_task_group() as group:
        for number in range(first, first + BATCH):
            group.start_soon(one, number)


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        model = make_tiny_llama(Path(place) / "tiny")
        with ServerProcess(str(model), "--log-level", "warning") as server:
            parent = psutil.Process(server.process.pid)
            resident = []
            for first in range(0, REQUESTS, BATCH):
                anyio.run(ask, Target(server.url), first)
                resident.append(parent.memory_info().rss)
                print(f"after {first + BATCH:6} requests: {resident[-1] / 2**20:.1f} MiB", flush=True)
    growth = resident[-1] / resident[0]
    print(f"growth after the first {BATCH}: {100 * (growth - 1):+.1f} %")
    return 0 if growth <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
