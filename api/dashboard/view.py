"""The whole picture: which panels, where, and how large, for a terminal of any size."""

from dataclasses import dataclass

from api.dashboard import panels, tables, words
from api.dashboard.model import Figures
from api.dashboard.parts import (
    BAD,
    BOLD,
    DIM,
    DOT,
    GOOD,
    HEAD,
    REVERSE,
    WARN,
    Block,
    Line,
    Part,
    beside,
    box,
    dimmed,
    fit,
    in_ascii,
    line,
    rule,
    split,
    tall,
    wrapped,
)
from api.dashboard.ui import KEYS, Ui, question

WIDE, HIGH = 120, 32
"""From this size on everything is shown side by side, in boxes."""
UPPER = 10
"""Lines of the boxes above."""


@dataclass(frozen=True, slots=True)
class Link:
    """How it stands with the server."""

    url: str
    trouble: str = ""
    """Why there is no connection; empty while there is one."""
    silent_s: float = 0.0
    """How long there has been none."""


def picture(figures: Figures | None, ui: Ui, link: Link, width: int, height: int, *, ascii_only: bool = False) -> Block:
    """`height` lines of exactly `width` cells."""
    middle = max(0, height - 2)
    body = _body(figures, ui, width, middle)
    if link.trouble:
        body = dimmed(body)
    lines = [_header(figures, ui, link), *tall(body, middle), _footer(ui, width)]
    block = [fit(each, width) for each in lines[:height]]
    return in_ascii(block) if ascii_only else block


def _body(figures: Figures | None, ui: Ui, width: int, height: int) -> Block:
    if ui.help:
        return _help(height)
    if figures is None:
        return []
    arrange = _wide if width >= WIDE and height + 2 >= HIGH else _compact
    return arrange(figures, ui, width, height)


# --- the first line and the last ---


def _header(figures: Figures | None, ui: Ui, link: Link) -> Line:
    paused: Part = (" PAUSED ", REVERSE) if ui.paused else ""
    if link.trouble:
        since = f" for {words.seconds(link.silent_s)}" if link.silent_s >= 1 else ""
        return line(
            ("Troupe ", HEAD),
            paused,
            (f" not connected{since}, trying again", BAD),
            f": {link.trouble}",
            f" {link.url}",
        )
    if figures is None:
        return line(("Troupe ", HEAD), link.url, "  connecting…")
    house = figures.house
    return line(("Troupe ", HEAD), paused, f" {link.url}  ", _state(figures), f"  up {words.seconds(house.uptime_s)}")


def _state(figures: Figures) -> Part:
    house = figures.house
    if house.admitter and house.admitter.draining:
        return ("draining", WARN)
    return (house.room.value, GOOD if house.room.value == "ready" else BAD)


def _footer(ui: Ui, width: int) -> Line:
    if ui.asking:
        return line((f" {question(ui.asking)} ", REVERSE))
    if ui.said:
        return line((f" {ui.said}", BOLD))
    keys = " q quit  s/S sort  p pause  up/down select  c cancel  ? keys"
    return line((keys if len(keys) <= width else " q quit  ? keys", DIM))


def _help(height: int) -> Block:
    rows = [line(("Keys", HEAD)), [], *(line((f"  {key:<18}", BOLD), does) for key, does in KEYS)]
    return rows[:height]


# --- everything side by side ---


def _wide(figures: Figures, ui: Ui, width: int, height: int) -> Block:
    """Three rows of boxes: the machine and its trends, the actors, and what runs."""
    actors_height = len(figures.actors) + 3
    rest = max(0, height - UPPER - actors_height)
    left, right = split(width, (11, 5))
    actors = box("Actors", tables.actors(figures, left - 4), left, actors_height)
    divergence = box("Divergence", wrapped(panels.divergence(figures), right - 4), right, actors_height)
    rows = tables.requests(figures, ui, left - 4, rest - 2)
    requests = box("Requests", rows, left, rest, *_sorted_by(figures, ui))
    troubles = box("Troubles", panels.wrapped_troubles(figures, right - 4, rest - 2), right, rest)
    return [
        *_machine(figures, width),
        *beside([(actors, left), (divergence, right)], actors_height),
        *beside([(requests, left), (troubles, right)], rest),
    ]


def _machine(figures: Figures, width: int) -> Block:
    one, two, three = split(width, (5, 6, 5))
    kept = wrapped([*panels.memory(figures), *panels.cache(figures)], two - 4)
    trends = panels.trends(figures, three - 4, UPPER - 2)
    columns = [
        (box("Engine", wrapped(panels.engine(figures), one - 4), one, UPPER), one),
        (box("Memory and cache", kept, two, UPPER), two),
        (box(_span(figures), trends, three, UPPER), three),
    ]
    return beside(columns, UPPER)


def _span(figures: Figures) -> str:
    return f"Trends over {words.seconds(figures.span_s)}"


def _sorted_by(figures: Figures, ui: Ui) -> tuple[Part, ...]:
    return ((f"{len(figures.requests)} inside, by {ui.sort.value}{' ▲' if ui.reverse else ' ▼'} ", DIM),)


# --- one below the other, where there is less room ---


def _compact(figures: Figures, ui: Ui, width: int, height: int) -> Block:
    """The requests have what room is left; where that is too little, the sections of least worth are left out."""
    actors = [rule("Actors", width), *tables.actors(figures, width)[1:]]
    if height >= len(actors) + 12:
        actors = [rule("Actors", width), *tables.actors(figures, width)]
    sections = {
        "flow": panels.flow(figures, width),
        "actors": actors,
        "engine": panels.engine(figures)[: 4 if height >= 26 else 3],
        "memory": panels.memory(figures) if height >= 26 else _memory_in_a_line(figures),
        "cache": [*panels.cache(figures), *panels.divergence(figures)] if height >= 30 else panels.cache(figures)[:1],
        "troubles": _troubles(figures, width, 1 if height < 26 else 3),
    }
    least = min(len(figures.requests), 3) + 2
    for name in ("troubles", "cache", "memory", "engine", "actors", "flow"):
        if sum(map(len, sections.values())) + least <= height:
            break
        del sections[name]
    rest = height - sum(map(len, sections.values()))
    rows = tables.requests(figures, ui, width, max(0, rest - 1))
    table = [rule("Requests", width, *_sorted_by(figures, ui)), *tall(rows, max(0, rest - 1))]
    order = ("engine", "memory", "cache", "flow", "actors")
    upper = [found for name in order for found in sections.get(name, [])]
    return [*upper, *table[:rest], *sections.get("troubles", [])]


def _memory_in_a_line(figures: Figures) -> Block:
    first, *second = panels.memory(figures)
    return [[*first, *line(DOT), *second[0]]] if second else [first]


def _troubles(figures: Figures, width: int, height: int) -> Block:
    """A single one has no heading."""
    heading = [rule("Troubles", width)] if height > 1 else []
    return [*heading, *panels.troubles(figures, height)] if figures.house.troubles else []
