"""What company changes about answers, without and with --batch-invariant, and what that costs; then a planted
divergence: found, acted on, and cleared when it ends. `python -m tests.soak.divergence PART …` (`make divergence`)."""

import json
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import httpx
import mlx.core as mx
from mlx.utils import tree_flatten

from api.bench.models import make_tiny
from runtime.mlx import loader
from runtime.models.resolve import resolve
from tests.e2e.process import ServerProcess
from tests.soak.hardships import survives
from tests.tiny import CORPUS

WIDTHS = (1, 2, 8, 32)
PATIENCE_S = 1800.0
FLAGS = ("--runtime-mode", "batched", "--log-level", "warning", "--timeout", "1800")
WORDS = " ".join(CORPUS).split()
PART_NAMES = ("tiny", "default", "tiny-bfloat16", "default-bfloat16", "hardships", "planted")
INTERVAL_S = 10.0
STREAMS = 8


@dataclass(frozen=True, slots=True)
class Answer:
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Run:
    answers: tuple[Answer, ...]
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return sum(len(answer.tokens) for answer in self.answers) / self.seconds

    def __add__(self, other: "Run") -> "Run":
        return Run(self.answers + other.answers, self.seconds + other.seconds)


def prompts(number: int) -> list[str]:
    """Of 5 to 120 words."""
    draw = random.Random(5)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(5, 120))) for _ in range(number)]


def ask(client: httpx.Client, prompt: str, tokens: int, salt: str) -> Answer:
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 0, "cache_salt": salt}
    scored = client.post("/v1/completions", json=body).raise_for_status().json()["choices"][0]["logprobs"]
    return Answer(tuple(scored["tokens"]), tuple(scored["token_logprobs"]))


def run(url: str, asked: Sequence[str], tokens: int, width: int, salt: str) -> Run:
    """All prompts, so many at a time."""
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client, ThreadPoolExecutor(width) as pool:
        started = time.perf_counter()
        answers = tuple(pool.map(lambda prompt: ask(client, prompt, tokens, salt), asked))
        return Run(answers, time.perf_counter() - started)


def in_turns(urls: Sequence[str], asked: Sequence[str], tokens: int, width: int) -> list[Run]:
    """One run each of two servers, half by half and crosswise, so that both meet the same machine."""
    middle = len(asked) // 2
    first = [run(url, asked[:middle], tokens, width, f"{width}") for url in urls]
    second = [run(url, asked[middle:], tokens, width, f"{width}") for url in reversed(urls)]
    return [one + other for one, other in zip(first, reversed(second), strict=True)]


def agreement(run: Run, alone: Run) -> str:
    """In how many places the tokens are the same, the first where they are not, and how many answers have the very same
    log-probabilities throughout."""
    pairs = list(zip(run.answers, alone.answers, strict=True))
    places = sum(max(len(a.tokens), len(b.tokens)) for a, b in pairs)
    same = sum(x == y for a, b in pairs for x, y in zip(a.tokens, b.tokens, strict=False))
    firsts = [
        len(list(takewhile(lambda both: both[0] == both[1], zip(a.tokens, b.tokens, strict=False)))) for a, b in pairs
    ]
    first = min((at for at, (a, b) in zip(firsts, pairs, strict=True) if a.tokens != b.tokens), default=None)
    bits = sum(a.logprobs == b.logprobs for a, b in pairs)
    return f"{same / places:.4f} ({places - same} of {places} differ, first at {first}; {bits}/{len(pairs)} to the bit)"


def compare(model: Path, dtype: str, number: int, tokens: int) -> bool:
    """One table; whether nothing changed with --batch-invariant."""
    flags = (*FLAGS, "--dtype", dtype)
    asked = prompts(number)
    print(f"{model.name}, computed in {dtype}: {number} prompts of {tokens} tokens", flush=True)
    with ServerProcess(str(model), *flags) as plain, ServerProcess(str(model), *flags, "--batch-invariant") as steady:
        alone: list[Run] = []
        good = True
        for width in WIDTHS:
            runs = in_turns([plain.url, steady.url], asked, tokens, width)
            alone = alone or runs
            cost = 1 - runs[1].tokens_per_s / runs[0].tokens_per_s
            said = [agreement(now, then) for now, then in zip(runs, alone, strict=True)]
            speeds = " and ".join(f"{each.tokens_per_s:.1f}" for each in runs)
            print(f"  {width:2} at a time: {speeds} tokens/s, cost {cost:.1%}")
            print(f"     without {said[0]}\n     with    {said[1]}", flush=True)
            good = good and runs[1].answers == alone[1].answers
        cached = run(steady.url, asked, tokens, 8, f"{WIDTHS[-1]}")
        print(f"   8 at a time from kept prefixes: with    {agreement(cached, alone[1])}", flush=True)
        return good and cached.answers == alone[1].answers


def in_bfloat16(model: Path, target: Path) -> Path:
    """A copy of a model with all its weights in bfloat16; quantised ones are widened first."""
    shutil.copytree(model, target, ignore=shutil.ignore_patterns("*.safetensors*"))
    loaded = loader.load(model, trust_remote_code=False, dtype="bfloat16")
    weights = dict(tree_flatten(loaded.model.parameters()))
    mx.save_safetensors(str(target / "model.safetensors"), weights, metadata={"format": "mlx"})
    config = json.loads((model / "config.json").read_text())
    plain = {key: value for key, value in config.items() if not key.startswith("quantization")}
    (target / "config.json").write_text(json.dumps(plain))
    return target


# --- a planted divergence ---


class Watch:
    """Who was on stage together, looked at again and again."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=10)
        self.most = self.looks = 0
        self._ended = threading.Event()

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()

    def _look(self) -> None:
        while not self._ended.wait(0.005):
            self.most = max(self.most, self._client.get("/v1/status").json()["num_running"])
            self.looks += 1


def divergence(client: httpx.Client) -> dict[str, object]:
    found: dict[str, object] = client.get("/v1/status").json()["divergence"]
    return found


def until(condition: Callable[[], bool], patience_s: float = 60.0) -> float:
    """How long it took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > patience_s:
            raise AssertionError("it did not come about")
        time.sleep(0.02)
    return time.monotonic() - started


def planted(model: Path) -> bool:
    """Whether it was found within an interval, acted on, and cleared under load within two."""
    monitor = ("--batch-divergence-monitor", "--batch-divergence-interval", f"{INTERVAL_S:g}")
    flags = (*FLAGS, *monitor, "--batch-divergence-action", "serialize", "--engine", "thread")
    program = ("-m", "tests.soak.planted")
    with ServerProcess(str(model), *flags, program=program) as server, httpx.Client(base_url=server.url) as client:
        until(lambda: divergence(client)["rounds"] == 1)
        before = divergence(client)
        server.process.send_signal(signal.SIGUSR1)
        found_s = until(lambda: bool(divergence(client)["diverged"]))
        print(f"before: {before['tallies']}\nfound after {found_s:.1f} s: {divergence(client)['tallies']}", flush=True)
        health = client.get("/health/diagnostics").json()
        with Watch(server.url) as watch:
            run(server.url, prompts(4 * STREAMS), 64, STREAMS, "serial")
        print(f"{STREAMS} streams: at most {watch.most} on stage at once in {watch.looks} looks; {health['status']}")
        server.process.send_signal(signal.SIGUSR1)
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(run, server.url, prompts(6 * STREAMS), 64, STREAMS, "after")
            cleared_s = until(lambda: not divergence(client)["diverged"])
            load.result()
        with Watch(server.url) as free:
            run(server.url, prompts(2 * STREAMS), 64, STREAMS, "free")
        print(f"cleared after {cleared_s:.1f} s, under load; then up to {free.most} on stage at once", flush=True)
        return found_s <= 2 * INTERVAL_S and watch.most == 1 and free.most > 1


def main(parts: Sequence[str]) -> int:
    good = True
    with tempfile.TemporaryDirectory() as folder:
        default = resolve(None, say=print).path
        tiny = in_bfloat16(make_tiny(default, Path(folder) / "made"), Path(folder) / "tiny")
        big = in_bfloat16(default, Path(folder) / "default") if any("default" in part for part in parts) else default
        play = {
            "tiny": lambda: compare(tiny, "auto", 50, 128),
            "default": lambda: compare(big, "auto", 50, 128),
            "tiny-bfloat16": lambda: compare(tiny, "bfloat16", 50, 128),
            "default-bfloat16": lambda: compare(big, "bfloat16", 8, 32),
            "hardships": lambda: survives(Path(folder) / "small"),
            "planted": lambda: planted(tiny),
        }
        for part in parts:
            good = play[part]() and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or PART_NAMES))
