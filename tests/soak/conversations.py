"""Sixty-four conversations on one prompt of the system: what the cache holds of them once they have ended, and what is
left of that when it is cleared. `make soak`."""

import random
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.e2e.process import ServerProcess
from tests.soak.asking import Ids, Server
from tests.soak.talks import Talk, message, next_turn, prompt_of
from tests.tiny import make_tiny_llama

CONVERSATIONS, TURNS = 64, 2
SYSTEM_TOKENS, MESSAGE_TOKENS, REPLY_TOKENS = 2_000, 30, 40
LAYERS, WIDTH = 4, 128
BYTES_PER_TOKEN = 2 * LAYERS * WIDTH * 4
"""Keys and values in float32; as large as this, so that what is kept shows beside the rest of the engine."""
FLAGS = ("--cache-memory-mb", "2000", "--log-level", "warning")
MOST_HELD = {"paged": 1.2, "memory-aware": float("inf")}
"""By strategy: bytes held over those of one prefix and all tails. Whole prefixes are what they are."""
TOLERANCE = 1.1


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes."""

    needed: int
    """One prefix, and the tail of each conversation."""
    held: float
    left: float
    """Held after the cache was cleared."""
    resident_before: int
    """Of the engine, after conversations of the same kind and a clearing."""
    resident_holding: int
    resident_after: int

    def __str__(self) -> str:
        held = f"{mib(self.held)} held, {self.held / self.needed:.2f} times one prefix and {CONVERSATIONS} tails"
        resident = [mib(each) for each in (self.resident_before, self.resident_holding, self.resident_after)]
        change = f"{self.resident_after / self.resident_before - 1:+.1%}"
        return f"{held}; {mib(self.left)} after clearing; engine {' -> '.join(resident)} ({change})"

    def good(self, most_held: float) -> bool:
        """Everything is held, hardly more is, and all of it goes."""
        return (
            0.9 <= self.held / self.needed <= most_held
            and self.left == 0
            and self.resident_after <= TOLERANCE * self.resident_before
        )


def mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"


def converse(server: Server, names: Mapping[str, int], system: Ids, number: int) -> tuple[int, int]:
    """One conversation; how many tokens it has behind the prompt of the system, and how many it had computed."""
    chance = random.Random(number)
    talk: Talk = (system, message(chance, MESSAGE_TOKENS))
    computed = 0
    for _ in range(TURNS):
        prompt = prompt_of(talk)
        said = server.ask(prompt, REPLY_TOKENS)
        computed += len(prompt) - said.cached_tokens
        reply = tuple(names[name] for name in said.tokens)
        talk = next_turn(talk, reply, message(chance, MESSAGE_TOKENS))
    return len(prompt) + len(reply) - len(system), computed


def converse_all(server: Server, names: Mapping[str, int], system: Ids) -> int:
    """All conversations at once; how many bytes the cache needs for them."""
    with ThreadPoolExecutor(CONVERSATIONS) as pool:
        ended = list(pool.map(lambda number: converse(server, names, system, number), range(CONVERSATIONS)))
    tails, computed = (sum(each) for each in zip(*ended, strict=True))
    print(f"  {computed} prompt tokens computed; alone they would be {CONVERSATIONS * TURNS * len(system)} and more")
    return (len(system) + int(tails)) * BYTES_PER_TOKEN


def held_bytes(server: Server) -> float:
    mebibytes = server.cache()["memory_mb"]
    assert isinstance(mebibytes, float)
    return mebibytes * 2**20


def measure(server: Server, engine: psutil.Process) -> Measured:
    """Warm up, clear, measure; converse, measure; clear, measure."""
    names = server.names()
    warming, system = (message(random.Random(seed), SYSTEM_TOKENS) for seed in ("warming", "system"))
    converse_all(server, names, warming)
    server.clear_cache()
    before = engine.memory_info().rss
    needed = converse_all(server, names, system)
    held, holding = held_bytes(server), engine.memory_info().rss
    server.clear_cache()
    return Measured(needed, held, held_bytes(server), before, holding, engine.memory_info().rss)


def main() -> int:
    good = True
    with tempfile.TemporaryDirectory() as place:
        model = make_tiny_llama(
            Path(place) / "tiny", hidden=WIDTH, layers=LAYERS, heads=4, kv_heads=4, context=SYSTEM_TOKENS + 1_000
        )
        for strategy, most_held in MOST_HELD.items():
            with (
                ServerProcess(str(model), *FLAGS, "--cache-strategy", strategy) as process,
                Server(process.url) as server,
            ):
                measured = measure(server, process.engine())
            print(f"{strategy}: {measured}", flush=True)
            good &= measured.good(most_held)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
