"""`troupe bench`: load a server that runs already, or this one and its peer side by side on the same models."""

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from api.bench import models, report, servers
from api.bench.client import Target
from api.bench.report import Figures, Load
from runtime.engine import blas
from runtime.models.home import home
from runtime.models.resolve import resolve

TINY = Load(max_tokens=128)
DEFAULT = Load(max_tokens=24, warm_chunks=20, running_tokens=1000, structure_tokens=64, rounds=3)
RAW_STEPS = 200

HEAD = """# Benchmarks

<!-- Made by `make bench`. -->

{conditions}; {blas}. {date}.

Each server ran with its own defaults, as a process of its own, one after the other in the same run, on the same
directory of float32 weights, driven over HTTP (`/v1/completions`, or `/v1/chat/completions` where it says chat;
streamed, greedy, every prompt beginning differently, but for chats that go on) by the same client, on the same machine.
A machine of two cores is shared by server and client; figures vary by some ten per cent from run to run, so read the
ratios. The *raw loop* is forward and argmax in MLX with no server around it.
"""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def running(url: str, model: str, against: Path | None) -> None:
    """Load the server at `url`, and mlx_lm.server on the model in `against` if that is given; print a table."""
    columns = {url: report.measure(Target(url, model), TINY, say)}
    if against:
        _preload_blas()
        with servers.mlx_lm(against) as target:
            columns[target.name] = report.measure(target, TINY, say)
    print(report.table(columns))


def side_by_side(write: Path | None) -> None:
    """Make the models, run this server and mlx_lm.server on each, and print the tables or write them to a file."""
    preloaded = _preload_blas()
    default = resolve(None, say=say).path
    place = home() / "bench"
    subjects = {
        "A tiny model (2 layers, hidden size 64, the default model's tokeniser)": (
            models.make_tiny(default, place / "tiny"),
            TINY,
        ),
        "The default model (SmolLM2-135M-Instruct)": (models.dequantised(default, place / "default"), DEFAULT),
    }
    parts = [
        HEAD.format(
            conditions=report.conditions(),
            blas=preloaded,
            date=time.strftime("%Y-%m-%d"),
        )
    ]
    for title, (model, load) in subjects.items():
        parts.append(f"## {title}\n\n{_compare(model, load)}\n")
    text = "\n".join(parts)
    if write:
        write.write_text(text, encoding="utf-8")
    else:
        print(text)


def _preload_blas() -> str:
    """Give every server that is started from here the same BLAS; what was found."""
    found = blas.find(os.environ.get("LD_PRELOAD", ""))
    if found and found.environment:
        os.environ |= found.environment
        return "OpenBLAS preloaded for every server"
    return "MLX's own BLAS"


def _compare(model: Path, load: Load) -> str:
    columns: dict[str, Figures] = {}
    extra: dict[str, float] = {}
    for start in (servers.troupe, servers.mlx_lm):
        with start(model) as target:
            columns[target.name] = report.measure(target, load, say)
            if start is servers.troupe:  # mlx_lm.server enforces no structure
                extra = report.structure_rows(target, load, say)
    with tempfile.TemporaryDirectory() as folder:
        extra |= report.restart_rows(partial(servers.troupe, model, "--cache-dir", folder), load, say)
    steps = RAW_STEPS if load is TINY else load.max_tokens
    extra |= {f"raw loop, tokens/s, {rows} rows": servers.raw_loop(model, rows, steps) for rows in report.STREAMS}
    return report.table(columns, extra)
