"""The panels that are not tables: engine, memory, cache, divergence, trends and troubles. Figures in, lines out."""

import textwrap
from collections.abc import Iterable

from actors.snapshots import HouseSnapshot, Tally, Trouble
from api.dashboard import words
from api.dashboard.actors import hit_rate
from api.dashboard.model import Figures
from api.dashboard.parts import (
    BAD,
    BOLD,
    DIM,
    DOT,
    GOOD,
    TREND,
    WARN,
    Block,
    Line,
    Part,
    fit,
    line,
    padded,
    printable,
    spark,
)
from api.dashboard.trends import Trend
from runtime.types import PressureLevel

LONG_SILENCE_S = 5.0
"""Of an engine that has something to do: no step takes so long."""

# --- engine, memory, cache ---


def engine(figures: Figures) -> Block:
    house = figures.house
    return [_what(house), _how(house), _times(house), _counts(house)]


def _what(house: HouseSnapshot) -> Line:
    if not (facts := house.facts):
        return line(f"engine: {house.room.value}")
    return line(
        (facts.device, BOLD),
        f"{DOT}{facts.dtype}{DOT}weights {words.size(facts.weight_bytes)}{DOT}"
        f"context {words.count(facts.context_tokens)}",
    )


def _how(house: HouseSnapshot) -> Line:
    if not (vitals := house.engine):
        return line("no heartbeat" if house.facts is None else ("no engine", BAD))
    silent: Part = f"heard {words.seconds(vitals.silent_s)} ago, at {vitals.doing}" if vitals.under_way else "idle"
    if vitals.silent_s >= LONG_SILENCE_S:
        silent = (f"SILENT for {words.seconds(vitals.silent_s)}, at {vitals.doing}", BAD)
    return line(silent, f"{DOT}{vitals.under_way} under way{DOT}pid {vitals.pid}")


def _times(house: HouseSnapshot) -> Line:
    scheduler = house.scheduler
    if not scheduler:
        return line("step –")
    prefill = words.seconds(scheduler.prefill_s)
    if scheduler.prefill_s:
        speed = words.count(scheduler.prefill_tokens / scheduler.prefill_s)
        prefill += f" for {words.count(scheduler.prefill_tokens)} ({speed} tok/s)"
    return line(f"step {words.seconds(scheduler.step_s)}{DOT}prefill {prefill}")


def _counts(house: HouseSnapshot) -> Line:
    turns = house.scheduler.prefill_turns if house.scheduler else None
    restarts = house.restarts.get("engine_room", 0)
    return line(
        f"{words.count(house.steps_executed)} steps{DOT}{words.count(turns)} prefill turns{DOT}",
        (words.several(restarts, "restart"), WARN) if restarts else "0 restarts",
    )


def memory(figures: Figures) -> Block:
    monitor = figures.house.monitor
    if not monitor or not monitor.usage:
        return [line("memory –")]
    usage, level = monitor.usage, monitor.level
    pressure: Part = "pressure normal" if level is PressureLevel.NORMAL else (f"PRESSURE {level.value.upper()}", BAD)
    return [
        line(
            pressure,
            f"{DOT}{words.percent(usage.system_used_fraction)} of {words.size(usage.system_total_bytes)} in use",
        ),
        line(
            f"active {words.size(usage.active_bytes)}{DOT}peak {words.size(usage.peak_bytes)}{DOT}"
            f"cached {words.size(usage.cache_bytes)}{DOT}resident {words.size(usage.resident_bytes)}"
        ),
    ]


def cache(figures: Figures) -> Block:
    shown = figures.house.cache
    if not shown:
        return [line("cache –")]
    hits = ", ".join(f"{number} {hit.value}" for hit, number in shown.hits.items() if number)
    disk = f"disk {words.size(shown.disk_bytes)} in {words.several(shown.disk_entries, 'entry', 'entries')}"
    return [
        line(
            f"{shown.strategy.value}{DOT}{words.size(shown.stored_bytes)} kept, {words.size(shown.leased_bytes)} leased"
            f" of {words.size(shown.budget_bytes)}{DOT}hit rate {words.percent(hit_rate(shown))}"
        ),
        line(
            f"{words.several(shown.entries, 'entry', 'entries')} of {words.several(shown.pieces, 'piece')}{DOT}"
            f"{words.several(shown.leases, 'lease')}{DOT}{words.several(shown.evictions, 'eviction')}{DOT}{disk}"
        ),
        line(f"hits: {hits or 'none'}"),
    ]


def divergence(figures: Figures) -> Block:
    probe = figures.house.probe
    if not probe:
        return [line(("not watched · --batch-divergence-monitor", DIM))]
    state: Part = ("DIVERGED", BAD) if probe.diverged else ("agrees", GOOD) if probe.rounds else "not measured yet"
    head = line(
        state, f"{DOT}{words.several(probe.rounds, 'round')}{DOT}threshold {probe.threshold:g}",
        f"{DOT}{probe.given_up} given up" if probe.given_up else "", f"{DOT}under way" if probe.under_way else "",
    )  # fmt: skip
    return [head, *(line(_tally(cause.value, tally)) for cause, tally in probe.tallies.items())]


def _tally(cause: str, tally: Tally) -> str:
    first = "no difference" if tally.first_difference is None else f"first at {tally.first_difference}"
    largest = tally.largest_logprob_difference
    logprob = "" if largest is None else f"{DOT}logprob {largest:.2g}"
    return f"{cause} {tally.agreement:.3f}{DOT}{first}{logprob}{DOT}{words.several(tally.prompts, 'prompt')}"


# --- trends ---


def trends(figures: Figures, width: int, height: int) -> Block:
    """Each trend in as many of `height` lines as there are for it, beside its name, its last value and its highest."""
    rows = [row for each in _trends(figures) for row in _trend(*each, width, max(1, height // 4))]
    return rows[:height]


def flow(figures: Figures, width: int) -> Block:
    """The same four, two in a line."""
    found = [_trend(*each, (width - 2) // 2, 1)[0] for each in _trends(figures)]
    half = (width - 2) // 2
    return [
        [*fit(left, half), *line("  "), *fit(right, half)] for left, right in zip(found[::2], found[1::2], strict=True)
    ]


def _trends(figures: Figures) -> Iterable[tuple[str, str, str, Trend]]:
    house, past = figures.house, figures.trends
    step_s = house.scheduler.step_s if house.scheduler else None
    inside = len(house.admitter.open_requests) if house.admitter else None
    usage = house.monitor.usage if house.monitor else None
    active = usage.active_bytes if usage else None
    return (
        ("tok/s", words.rate(figures.tokens_per_s), words.rate(past.tokens_per_s.highest()), past.tokens_per_s),
        ("step", words.seconds(step_s), words.seconds(past.step_s.highest()), past.step_s),
        ("inside", words.count(inside), words.count(past.inside.highest()), past.inside),
        ("memory", words.size(active), words.size(past.memory.highest()), past.memory),
    )


def _trend(name: str, now: str, highest: str, trend: Trend, width: int, height: int) -> Block:
    label = f"{padded(name, 6)} {padded(now, 8, right=True)} "
    drawn = spark(trend.cells(max(0, width - len(label))), height)
    below = padded(f"{padded('most', 6)} {padded(highest, 8, right=True)} ", len(label))
    labels = [line((label, BOLD)), line((below, DIM)), *[line(" " * len(label))] * height][:height]
    return [[*found, *line((row, TREND))] for found, row in zip(labels, drawn, strict=True)]


# --- troubles ---

_LEVELS = {"warning": WARN, "error": BAD, "critical": BAD}


def troubles(figures: Figures, height: int) -> Block:
    """The last of them, the newest first, one a line."""
    found = figures.house.troubles[: -height - 1 : -1]
    return [[*_who(each, figures.house.at), *line(f" {each.text}")] for each in found] or [_no_trouble()][:height]


def wrapped_troubles(figures: Figures, width: int, height: int) -> Block:
    """The same, each in as many lines as it needs."""
    block: Block = []
    for each in reversed(figures.house.troubles):
        block.append(_who(each, figures.house.at))
        block += [line(f"  {text}") for text in textwrap.wrap(printable(each.text), max(8, width - 2))]
    return block[:height] or [_no_trouble()][:height]


def _who(trouble: Trouble, now: float) -> Line:
    ago = words.clock(max(0.0, now - trouble.at))
    return line(f"{ago} ago ", (trouble.level, _LEVELS.get(trouble.level, BOLD)), f" {trouble.who}:")


def _no_trouble() -> Line:
    return line(("no warnings, no errors", DIM))
