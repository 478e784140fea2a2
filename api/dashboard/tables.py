"""The two tables: the actors, and the requests that are inside. Figures in, lines out."""

from collections.abc import Sequence

from rich.segment import Segment

from api.dashboard import words
from api.dashboard.actors import ActorRow
from api.dashboard.model import Figures, RequestRow
from api.dashboard.parts import (
    BAD,
    DIM,
    GOOD,
    REVERSE,
    TREND,
    WARN,
    Block,
    Column,
    Line,
    Part,
    bar,
    cells,
    chosen,
    fit,
    line,
    titles,
)
from api.dashboard.ui import Ui, ordered, position
from runtime.types import HitType

# --- actors ---

ACTORS = (
    Column("actor", 16, worth=9),
    Column("life", 8, worth=2),
    Column("mail", 5, worth=7, right=True),
    Column("of", 5, worth=1, right=True),
    Column("msg/s", 5, worth=6, right=True),
    Column("restarts", 8, worth=4, right=True),
    Column("state", 16, worth=8, most=200),
)
_LIVES = {"alive": GOOD, "starting": WARN, "dead": BAD, "off": DIM}


def actors(figures: Figures, width: int) -> Block:
    """A heading and a line per actor. Where there is no column for it, who does not live says so as its state."""
    layout = chosen(ACTORS, width)
    return [titles(ACTORS, layout), *(cells(ACTORS, layout, _actor(row)) for row in figures.actors)]


def _actor(row: ActorRow) -> Sequence[Part]:
    return (
        row.name,
        (row.life, _LIVES[row.life]),
        words.count(row.depth),
        "any" if row.depth is not None and row.capacity is None else words.count(row.capacity),
        words.rate(row.handled_per_s),
        words.count(row.restarts),
        row.state if row.life == "alive" else (row.life, _LIVES[row.life]),
    )


# --- requests ---

REQUESTS = (
    Column("", 1, worth=11),
    Column("request", 20, worth=10),
    Column("phase", 7, worth=9),
    Column("progress", 6, worth=5, most=40),
    Column("tokens", 11, worth=8, right=True),
    Column("tok/s", 5, worth=7, right=True),
    Column("hit", 6, worth=4),
    Column("cached", 6, worth=3, right=True),
    Column("age", 8, worth=6, right=True),
    Column("first tok", 9, worth=0, right=True),
)
_HITS = {HitType.SUPERSEQUENCE: "super"}


def requests(figures: Figures, ui: Ui, width: int, height: int) -> Block:
    """A heading, as many rows as there is room for around the selected one, and how many more there are."""
    rows = ordered(figures.requests, ui)
    if not rows:
        return [line(("no requests", DIM))][:height]
    layout = chosen(REQUESTS, width)
    at = position(rows, ui)
    room = max(0, height - 1)
    room -= len(rows) > room and room > 1
    first = window(len(rows), at or 0, room)
    block = [titles(REQUESTS, layout)]
    for index, row in enumerate(rows[first : first + room], start=first):
        found = cells(REQUESTS, layout, _request(row, index == at, _width_of_bar(layout)))
        block.append([*fit(found, width)] if index != at else _reversed(fit(found, width)))
    if len(rows) > room:
        block.append(line((_left_out(len(rows) - room, first), DIM)))
    return block[:height]


def window(number: int, at: int, room: int) -> int:
    """The first of `room` rows of `number` that are shown, so that row `at` is in the middle where that can be."""
    return max(0, min(number - room, at - room // 2))


def _left_out(number: int, above: int) -> str:
    return f"and {number} more" + (f" ({above} above, {number - above} below)" if above else "")


def _width_of_bar(layout: Sequence[tuple[int, int]]) -> int:
    return next((width for i, width in layout if REQUESTS[i].title == "progress"), 0)


def _reversed(found: Line) -> Line:
    """But for the bar, which would say the opposite."""
    return [each if each.style is TREND else Segment(each.text, REVERSE) for each in found]


def _request(row: RequestRow, selected: bool, width: int) -> Sequence[Part]:
    return (
        "▸" if selected else "",
        words.short_id(row.request_id),
        row.phase.value,
        (bar(row.progress, width), TREND) if row.total else "",
        f"{words.count(row.done)}/{words.count(row.total)}" if row.total else "",
        words.rate(row.tokens_per_s) if row.total else "",
        _HITS.get(row.hit, row.hit.value) if row.hit else "",
        words.count(row.cached) if row.hit else "",
        words.clock(row.age_s) if row.age_s is not None else "",
        words.clock(row.ttft_s) if row.ttft_s is not None else "",
    )
