"""A hundred long requests where there is room for three, and others while memory becomes short: each ends with its
right text or with a 503 that says when to come again, and the engine lives. `make soak`."""

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from tests.e2e.process import ServerProcess
from tests.soak.asking import Ids, Reference, Refused, Server, judge
from tests.soak.talks import words
from tests.tiny import make_tiny_llama

PROMPT_TOKENS, OUTPUT_TOKENS = 200, 400
PROMPTS, CROWD, UNDER_PRESSURE = 50, 100, 40
WIDTH = 128
"""Of keys and of values: 2 KiB per token in 2 layers, 1.2 MiB per sequence at its end."""
FLAGS = ("--queue-size", "200", "--timeout", "1800")
REFERENCE = (*FLAGS, "--cache-memory-mb", "0", "--log-level", "warning")
NARROW = (*FLAGS, "--kv-memory-mb", "3")
PRESSED = (*FLAGS, "--memory-action", "reject-new", "--memory-monitor-interval", "0.2")
BALLAST, WARN, LIMIT = 10, 5, 6
"""Percent of the machine's memory: what this process takes for a while, and what more than now is too much."""
PATIENCE_S = 60.0
PREEMPTED = "goes back in line: its KV bytes are needed"
TURNED_AWAY = "503"
SERVED = {"the same", "a tie"}


def outcome(server: Server, reference: Reference, prompt: Ids) -> str:
    """In a word, what became of a request."""
    try:
        said = server.ask(prompt, OUTPUT_TOKENS)
    except Refused as refusal:
        return TURNED_AWAY if refusal.status == 503 and refusal.retry_after else f"{refusal}, without Retry-After"
    return judge(said, reference.says(prompt), OUTPUT_TOKENS).value


def crowd(server: Server, reference: Reference, prompts: Sequence[Ids]) -> Counter[str]:
    """All at once; how many ended how."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        return Counter(pool.map(lambda prompt: outcome(server, reference, prompt), prompts))


def narrow(model: Path, reference: Reference, prompts: Sequence[Ids]) -> bool:
    """Running sequences that outgrow the memory for KV caches go back in line, and their clients do not notice."""
    with ServerProcess(str(model), *NARROW) as process, Server(process.url) as server:
        engine = process.engine()
        ended = crowd(server, reference, prompts)
        preemptions, lives = server.status()["num_preemptions"], process.engine().pid == engine.pid
    logged = process.output().count(PREEMPTED)
    print(f"room for three: {said(ended)}; {preemptions} preemptions, {logged} in the log; {health(lives)}", flush=True)
    return lives and preemptions == logged > 0 and ended.keys() <= SERVED


def pressed(model: Path, reference: Reference, prompts: Sequence[Ids]) -> bool:
    """Who is inside when memory becomes short is served to the end, who comes then is told when to come again, and who
    comes once there is enough again is served."""
    memory = psutil.virtual_memory()
    thresholds = (
        f"--memory-{name}-threshold={memory.percent + more}" for name, more in (("warn", WARN), ("limit", LIMIT))
    )
    with ServerProcess(str(model), *PRESSED, *thresholds) as process, Server(process.url) as server:
        engine = process.engine()
        with ThreadPoolExecutor(1) as before:
            inside = before.submit(crowd, server, reference, prompts)
            until(lambda: server.queue()["active_requests"] == len(prompts))
            ballast = bytearray(b"x") * (memory.total * BALLAST // 100)
            until(lambda: pressure(server) == "limit")
            away = crowd(server, reference, prompts)
            del ballast
            until(lambda: pressure(server) == "normal")
            after = crowd(server, reference, prompts)
        lives = process.engine().pid == engine.pid
    print(
        f"memory becomes short: inside {said(inside.result())}; then {said(away)}; later {said(after)}; {health(lives)}"
    )
    return lives and (inside.result() + after).keys() <= SERVED and away.keys() == {TURNED_AWAY}


def pressure(server: Server) -> object:
    memory = server.status()["memory"]
    assert isinstance(memory, dict)
    return memory["pressure"]


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < end, "nothing happened"


def said(ended: Counter[str]) -> str:
    return ", ".join(f"{count} {how}" for how, count in ended.most_common())


def health(lives: bool) -> str:
    return f"the engine {'lives' if lives else 'DIED'}"


def main() -> int:
    chance = random.Random(0)
    prompts = [words(chance, PROMPT_TOKENS) for _ in range(PROMPTS)]
    with tempfile.TemporaryDirectory() as place:
        model = make_tiny_llama(Path(place) / "tiny", hidden=WIDTH, kv_heads=4)
        with ServerProcess(str(model), *REFERENCE) as process, Server(process.url) as server:
            reference = Reference(server, OUTPUT_TOKENS)
            good = narrow(model, reference, prompts * (CROWD // PROMPTS))
            good &= pressed(model, reference, prompts[:UNDER_PRESSURE])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
