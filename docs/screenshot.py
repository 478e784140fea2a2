"""Writes docs/dashboard.svg: the dashboard of a real server under a little load. `make screenshot`."""

import io
import re
import sys
from pathlib import Path

import anyio
from rich.console import Console
from rich.segment import Segment, Segments

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from api.bench.client import Target  # noqa: E402
from api.dashboard import feed  # noqa: E402
from api.dashboard.model import Figures, Model  # noqa: E402
from api.dashboard.parts import Block  # noqa: E402
from api.dashboard.ui import Ui  # noqa: E402
from api.dashboard.view import Link, picture  # noqa: E402
from tests.e2e.process import ServerProcess  # noqa: E402

WIDTH, HEIGHT = 140, 36
CLIENTS, LONGEST_S, INTERVAL_S = 10, 150, 0.5
ROWS = "6"
STORY = "Tell me a long story about the sea, in the words of sailor number"


def main() -> None:
    with ServerProcess("--max-concurrency", ROWS, "--batch-divergence-monitor") as server:
        figures, address = anyio.run(watch, server.url)
    block = picture(figures, Ui(selected=figures.requests[1].request_id), Link(address), WIDTH, HEIGHT)
    (ROOT / "docs" / "dashboard.svg").write_text(drawn(block), encoding="utf-8")


async def watch(url: str) -> tuple[Figures, str]:
    """The figures of a server under load."""
    model = Model(INTERVAL_S)
    async with anyio.create_task_group() as group:
        for number in range(CLIENTS):
            group.start_soon(_ask_on, url, number)
        async with feed.Server(url, interval_s=INTERVAL_S).client() as client:
            async for house in feed.snapshots(client, INTERVAL_S):
                figures = model.take(house)
                if _is_worth_seeing(figures) or house.uptime_s > LONGEST_S:
                    break
        group.cancel_scope.cancel()
    return figures, url


def _is_worth_seeing(figures: Figures) -> bool:
    """There is a past, the probe has had a result, and all clients are in at once."""
    house = figures.house
    ended = house.admitter.requests_closed if house.admitter else 0
    rounds = house.probe.rounds if house.probe else 0
    return ended > 3 * CLIENTS and rounds > 0 and len(figures.requests) == CLIENTS


async def _ask_on(url: str, number: int) -> None:
    """One question after another, of various lengths, until it is over."""
    asked = 0
    while True:
        asked += 1
        question = f"{STORY} {number}, tale {asked}{', please' * 2 * number}."
        await Target(url).chat([{"role": "user", "content": question}], 40 + 9 * number)


def drawn(block: Block) -> str:
    """As SVG, with rich's own export. It names a font on the web: the reader's own is used instead."""
    console = Console(
        record=True, width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    rows = [segment for row in block for segment in (*row, Segment.line())]
    console.print(Segments(rows), end="")
    svg = console.export_svg(title="troupe top", unique_id="troupe")
    svg = re.sub(r"<!--.*?-->|@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace(
        "Fira Code, monospace", "monospace"
    )
    return "\n".join(row.rstrip() for row in svg.splitlines() if row.strip()) + "\n"


if __name__ == "__main__":
    main()
