"""What is shown of each actor: its mailbox, its pace, its restarts, and its own state in a few words."""

from dataclasses import dataclass

from actors.snapshots import (
    AdmitterSnapshot,
    CacheSnapshot,
    DecodeSnapshot,
    HouseSnapshot,
    MonitorSnapshot,
    PrefillSnapshot,
    ProbeSnapshot,
    RoomState,
    SchedulerSnapshot,
)
from api.dashboard import words
from api.dashboard.parts import DOT
from runtime.types import HitType, PressureLevel

SUPERVISORS = {
    "request_admitter": "",
    "scheduler": "engine_room",
    "prefill_worker": "engine_room",
    "decode_worker": "engine_room",
    "cache_manager": "engine_room",
    "memory_monitor": "observers",
    "divergence_probe": "observers",
}
"""Who starts it again: of the door nobody, it lives as long as the house."""


@dataclass(frozen=True, slots=True)
class ActorRow:
    name: str
    life: str
    """`alive`, `starting`, `dead` or `off`."""
    depth: int | None
    """How many messages lie in its mailbox; None where there is none."""
    capacity: int | None
    handled_per_s: float | None
    restarts: int | None
    """None where it is never restarted."""
    state: str


def actor_rows(before: HouseSnapshot | None, house: HouseSnapshot) -> tuple[ActorRow, ...]:
    """One row for each actor of the house, the probe only where there is one."""
    states = _states(house)
    names = [*states, *(name for name in house.mailboxes if name not in SUPERVISORS)]
    return tuple(_row(name, states.get(name), before, house) for name in names)


def _row(name: str, state: str | None, before: HouseSnapshot | None, house: HouseSnapshot) -> ActorRow:
    box = house.mailboxes.get(name)
    earlier = before.mailboxes.get(name) if before else None
    per_s = None
    if box and before and earlier and box.handled >= earlier.handled:
        per_s = (box.handled - earlier.handled) / (house.at - before.at)
    supervisor = SUPERVISORS.get(name, "")
    return ActorRow(
        name=name,
        life=_life(name, state, house),
        depth=box.depth if box else None,
        capacity=box.capacity if box else None,
        handled_per_s=per_s,
        restarts=house.restarts.get(supervisor, 0) if supervisor else None,
        state=state or "",
    )


def _life(name: str, state: str | None, house: HouseSnapshot) -> str:
    if state is not None or name not in SUPERVISORS:
        return "alive"
    box = house.mailboxes.get(name)
    if name == "divergence_probe" and not (box and box.handled):
        return "off"  # Nobody has ever lived behind this mailbox.
    return "starting" if house.room is RoomState.LOADING else "dead"


def _states(house: HouseSnapshot) -> dict[str, str | None]:
    """By name, in the order in which they are shown; None of one that does not live.

    The cache's snapshot outlives it, so it is taken to live while the scheduler beside it does.
    """
    states: dict[str, str | None] = {
        "request_admitter": _admitter(house.admitter) if house.admitter else None,
        "scheduler": _scheduler(house.scheduler) if house.scheduler else None,
        "prefill_worker": _prefill(house.prefill) if house.prefill else None,
        "decode_worker": _decode(house.decode) if house.decode else None,
        "cache_manager": _cache(house.cache) if house.cache and house.scheduler else None,
        "memory_monitor": _monitor(house.monitor) if house.monitor else None,
    }
    if house.probe or "divergence_probe" in house.mailboxes:
        states["divergence_probe"] = _probe(house.probe) if house.probe else None
    return states


def _admitter(shown: AdmitterSnapshot) -> str:
    parts = [
        f"{len(shown.open_requests)} of {shown.credits} open",
        f"{words.count(shown.requests_closed)} closed",
        f"{words.count(shown.rejected)} refused",
    ]
    return DOT.join(["draining", *parts] if shown.draining else parts)


def _scheduler(shown: SchedulerSnapshot) -> str:
    parts = [
        f"{shown.mode.value}, serialised" if shown.serialised else shown.mode.value,
        f"{len(shown.waiting)} waiting, {len(shown.prefilling)} prefill, {len(shown.decoding)} decode",
        f"turns {'+'.join(shown.turns_under_way) or 'none'}",
    ]
    if shown.background:
        parts.append(f"{len(shown.background)} in background")
    if shown.preemptions:
        parts.append(f"{words.count(shown.preemptions)} preempted")
    return DOT.join(parts)


def _prefill(shown: PrefillSnapshot) -> str:
    left = sum(each.total_tokens - each.done_tokens for each in shown.sequences)
    return f"{words.several(len(shown.sequences), 'prompt')}{DOT}{words.count(left)} tokens to go"


def _decode(shown: DecodeSnapshot) -> str:
    unsent = sum(each.unsent_tokens for each in shown.sequences)
    parts = [words.several(len(shown.sequences), "row"), f"{words.count(shown.produced_tokens)} tokens so far"]
    return DOT.join([*parts, f"{words.count(unsent)} unsent"] if unsent else parts)


def _cache(shown: CacheSnapshot) -> str:
    return DOT.join(
        (
            shown.strategy.value,
            words.several(shown.entries, "entry", "entries"),
            f"hit rate {words.percent(hit_rate(shown))}",
            f"{words.size(shown.stored_bytes)} kept",
        )
    )


def _monitor(shown: MonitorSnapshot) -> str:
    level = shown.level.value if shown.level is PressureLevel.NORMAL else f"{shown.level.value.upper()}!"
    if shown.usage is None:
        return level
    return (
        f"{level}{DOT}{words.percent(shown.usage.system_used_fraction)} of {words.size(shown.usage.system_total_bytes)}"
    )


def _probe(shown: ProbeSnapshot) -> str:
    parts = [words.several(shown.rounds, "round")]
    if shown.tallies:
        parts.append(f"agreement {min(each.agreement for each in shown.tallies.values()):.3f}")
    if shown.diverged:
        parts.insert(0, "DIVERGED")
    if shown.under_way:
        parts.append("under way")
    return DOT.join(parts)


def hit_rate(shown: CacheSnapshot) -> float | None:
    """Of the requests that were looked up, how many found something; None before the first."""
    lookups = sum(shown.hits.values())
    return 1 - shown.hits.get(HitType.MISS, 0) / lookups if lookups else None
