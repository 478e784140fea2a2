"""Runs the scenarios on one server, or on two side by side, and writes the figures down."""

import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import anyio

from api.bench import scenarios as sc
from api.bench.client import Target
from api.bench.prefixes import Prefixes, prefixes, restarted
from runtime import __version__

STREAMS = (1, 8, 32)


@dataclass(frozen=True, slots=True)
class Load:
    """How hard a model is driven: a slow one is given less to say."""

    max_tokens: int
    long_tokens: int = 3000
    warm_chunks: int = 100
    running_tokens: int = 4000
    """Enough for the running streams to outlast the long prompt."""
    structure_tokens: int = 400
    rounds: int = 9
    """Of what is measured by its median."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured of one server with one model."""

    throughput: dict[int, sc.Throughput]
    stall: sc.Stall
    prefixes: Prefixes
    health: sc.Health

    def rows(self) -> dict[str, float]:
        """By name, as the table shows them."""
        found: dict[str, float] = {}
        for streams, each in self.throughput.items():
            found[f"tokens/s, {streams} streams"] = each.tokens_per_s
        for streams, each in self.throughput.items():
            found[f"time to first token p50, {streams} streams (s)"] = each.first_p50_s
        widest = self.throughput[max(self.throughput)]
        found[f"inter-chunk gap p50, {widest.streams} streams (ms)"] = widest.gap_p50_s * 1e3
        found[f"inter-chunk gap p99, {widest.streams} streams (ms)"] = widest.gap_p99_s * 1e3
        found[f"inter-chunk gap max, {widest.streams} streams (ms)"] = widest.gap_max_s * 1e3
        quiet = self.stall.quiet_gap_s / self.stall.usual_gap_s
        found["stall: longest gap of 8 streams over their usual, while a long prompt comes in"] = self.stall.ratio
        found["the same before it comes in (what the machine does to their pace by itself)"] = quiet
        found["that prompt's time to first token (s)"] = self.stall.long_first_s
        found |= _prefix_rows(self.prefixes)
        found["/health p50 under load (ms)"] = self.health.p50_s * 1e3
        found["/health p99 under load (ms)"] = self.health.p99_s * 1e3
        return found


def _prefix_rows(found: Prefixes) -> dict[str, float]:
    return {
        "chat on a 1,500-token system prompt, cold: time to first token (s)": found.cold_s,
        "the same chat again (s)": found.repeat_s,
        "its second turn (s)": found.turn_s,
        "another message on that system prompt (s)": found.tail_s,
        "again over cold": found.repeat_s / found.cold_s,
        "second turn over cold": found.turn_s / found.cold_s,
        "another message over cold": found.tail_s / found.cold_s,
    }


def measure(target: Target, load: Load, say: Callable[[str], None]) -> Figures:
    """Every scenario, one after the other."""
    throughput = {}
    for streams in STREAMS:
        say(f"{target.name}: {streams} streams")
        one = partial(sc.throughput, max_tokens=load.max_tokens)
        throughput[streams] = anyio.run(one, target, streams)
    say(f"{target.name}: a long prompt among 8 streams, prefixes, /health")
    long = load.long_tokens
    prefix = partial(prefixes, shared_tokens=long // 2, rounds=load.rounds)
    stall = partial(
        sc.stall, streams=8, prompt_tokens=long, warm_chunks=load.warm_chunks, max_tokens=load.running_tokens
    )
    health = partial(sc.health, streams=32, prompt_tokens=long, max_tokens=load.max_tokens)
    return Figures(
        throughput=throughput,
        stall=anyio.run(stall, target),
        prefixes=anyio.run(prefix, target),
        health=anyio.run(health, target),
    )


def structure_rows(target: Target, load: Load, say: Callable[[str], None]) -> dict[str, float]:
    """What it costs to hold 8 streams to a schema."""
    say(f"{target.name}: 8 streams held to a schema")
    one = partial(sc.structure, streams=8, max_tokens=load.structure_tokens, rounds=3)
    found = anyio.run(one, target)
    return {
        "8 chats, free: tokens/s from the first token on": found.free_tokens_per_s,
        "8 chats, held to a JSON schema": found.constrained_tokens_per_s,
        "constrained over free": found.ratio,
    }


def restart_rows(
    start: Callable[[], AbstractContextManager[Target]], load: Load, say: Callable[[str], None]
) -> dict[str, float]:
    """What a cache on disk is worth to a server that `start` starts."""
    say("a restart on the same --cache-dir")
    found = restarted(start, shared_tokens=load.long_tokens // 2, rounds=load.rounds)
    return {
        "with --cache-dir, that chat, cold: time to first token (s)": found.cold_s,
        "the same chat again after a restart (s)": found.again_s,
        "after a restart over cold": found.again_s / found.cold_s,
    }


def table(columns: dict[str, Figures], extra: dict[str, float] | None = None) -> str:
    """A Markdown table; with two columns, a third for their ratio (first over second)."""
    names = list(columns)
    rows = {name: figures.rows() for name, figures in columns.items()}
    compare = len(names) == 2
    lines = [
        "| | " + " | ".join(names) + (" | ratio |" if compare else " |"),
        "|---" * (len(names) + 1 + compare) + "|",
    ]
    for row in rows[names[0]]:
        values = [rows[name][row] for name in names]
        cells = [f"{value:.4g}" for value in values] + ([f"{values[0] / values[1]:.2f}"] if compare else [])
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    for row, value in (extra or {}).items():
        lines.append(f"| {row} | {value:.4g} |" + " |" * (len(names) - 1 + compare))
    return "\n".join(lines)


def conditions() -> str:
    """What the figures were made with, without naming the machine."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("mlx", "mlx-lm"))
    kind = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"Troupe {__version__}, {packages}, Python {platform.python_version()}, {kind}"
