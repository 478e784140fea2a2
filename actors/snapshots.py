"""What each actor shows of itself: plain values for /v1/status, /health and the dashboard."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from runtime.types import CacheStrategy, HitType, MemoryUsage, ModelFacts, PressureLevel, RequestId


@dataclass(frozen=True, slots=True)
class MailboxSnapshot:
    depth: int
    capacity: int | None
    """None is without bound."""
    handled: int


@dataclass(frozen=True, slots=True)
class AdmitterSnapshot:
    open_requests: tuple[RequestId, ...]
    """Accepted and not yet closed, oldest first."""
    credits: int
    """How many may be open at once."""
    draining: bool
    pressure: PressureLevel
    requests_closed: int
    prompt_tokens: int
    completion_tokens: int
    peak_open: int
    rejected: int


@dataclass(frozen=True, slots=True)
class SchedulerSnapshot:
    waiting: tuple[RequestId, ...]
    """The line, first to go first."""
    prefilling: tuple[RequestId, ...]
    decoding: tuple[RequestId, ...]
    turns_under_way: tuple[str, ...]
    prefill_turns: int
    prefill_budget: int
    """The most tokens that a prefill turn beside running streams may hold now."""
    usual_step_s: float | None
    """How long running streams wait for a token while no prompt comes in; None before it was measured."""
    decode_steps: int
    preemptions: int
    """How often a sequence had to go back in line because its KV bytes were needed."""


@dataclass(frozen=True, slots=True)
class PrefillingSequence:
    request_id: RequestId
    done_tokens: int
    total_tokens: int
    cached_tokens: int
    hit_type: HitType
    max_tokens: int


@dataclass(frozen=True, slots=True)
class PrefillSnapshot:
    sequences: tuple[PrefillingSequence, ...]


@dataclass(frozen=True, slots=True)
class DecodingSequence:
    request_id: RequestId
    generated_tokens: int
    max_tokens: int
    unsent_tokens: int
    """Produced, but not yet taken by the client."""
    cached_tokens: int
    hit_type: HitType
    ttft_s: float | None
    """From arrival to the first token; None before it."""
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class DecodeSnapshot:
    sequences: tuple[DecodingSequence, ...]


@dataclass(frozen=True, slots=True)
class CacheSnapshot:
    strategy: CacheStrategy
    """What was chosen: never `auto`."""
    budget_bytes: int
    leased_bytes: int
    stored_bytes: int
    leases: int
    entries: int
    pieces: int
    """What the entries are made of; what they share counts once."""
    hits: dict[HitType, int]
    """Requests by what their look-up found, misses among them: each once, when it first leaves the stage."""
    evictions: int
    disk_bytes: int
    disk_entries: int


@dataclass(frozen=True, slots=True)
class MonitorSnapshot:
    level: PressureLevel
    usage: MemoryUsage | None
    """None until the engine has measured for the first time."""


ActorSnapshot = (
    AdmitterSnapshot | SchedulerSnapshot | PrefillSnapshot | DecodeSnapshot | CacheSnapshot | MonitorSnapshot
)


def with_earlier(shown: ActorSnapshot, earlier: Iterable[ActorSnapshot]) -> ActorSnapshot:
    """The same with what was counted in earlier lives, of which `earlier` holds what the last of them showed."""
    for before in earlier:
        match shown, before:
            case SchedulerSnapshot(), SchedulerSnapshot():
                return replace(shown, preemptions=before.preemptions + shown.preemptions)
            case CacheSnapshot(), CacheSnapshot():
                hits = {hit_type: before.hits[hit_type] + number for hit_type, number in shown.hits.items()}
                return replace(shown, hits=hits, evictions=before.evictions + shown.evictions)
    return shown


def emptied(shown: CacheSnapshot) -> CacheSnapshot:
    """What is left of a cache when its engine is gone: its counts, and its disk."""
    return replace(shown, leased_bytes=0, stored_bytes=0, leases=0, entries=0, pieces=0)


class RoomState(StrEnum):
    """How the engine room is, for /health."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"


@dataclass(frozen=True, slots=True)
class HouseSnapshot:
    """The whole house between two handlers."""

    at: float
    uptime_s: float
    room: RoomState
    restarts: dict[str, int]
    """Per supervisor, since the start."""
    facts: ModelFacts | None
    """Of the loaded model; None while there is none."""
    mailboxes: dict[str, MailboxSnapshot]
    admitter: AdmitterSnapshot | None
    """An actor that does not live now has no snapshot; but the cache has one from its first life on."""
    scheduler: SchedulerSnapshot | None
    prefill: PrefillSnapshot | None
    decode: DecodeSnapshot | None
    cache: CacheSnapshot | None
    monitor: MonitorSnapshot | None
    steps_executed: int
    """Decode steps since the start, over all lives of the engine room."""
