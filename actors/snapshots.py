"""What each actor shows of itself: plain values for /v1/status, /health and the dashboard."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from runtime.engine.host import Vitals
from runtime.types import (
    CacheStrategy,
    DivergenceCause,
    HitType,
    MemoryUsage,
    ModelFacts,
    PressureLevel,
    RequestId,
    RuntimeMode,
)


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
    arrived_at: tuple[float, ...] = ()
    """When each of `open_requests` came, on the house's clock."""


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
    mode: RuntimeMode = RuntimeMode.BATCHED
    """`simple` or `batched`: how it is now."""
    serialised: bool = False
    """One sequence at a time, because answers diverged in company."""
    background: tuple[RequestId, ...] = ()
    """Those that nobody waits for, in line or on stage; none of them is told elsewhere in here."""
    step_s: float | None = None
    """How long the last decode step took the engine; None before the first."""
    prefill_s: float | None = None
    """How long the last prefill turn took it."""
    prefill_tokens: int = 0
    """How many tokens that turn held."""


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
    produced_tokens: int = 0
    """By all sequences, since the start."""


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


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of comparing two runs each of so many prompts."""

    prompts: int
    compared_tokens: int
    agreement: float
    """Of the tokens in the same place, how many are the same: 0 to 1."""
    first_difference: int | None
    """The earliest place in any output where the two differ; None where none do."""
    largest_logprob_difference: float | None
    """Between the same token's log-probabilities in both runs, over all places up to the first difference; None if one
    of the runs has none."""


@dataclass(frozen=True, slots=True)
class ProbeSnapshot:
    rounds: int
    """Rounds of probes that ended with a result."""
    under_way: bool
    diverged: bool
    """Whether the last round's agreement was below the threshold."""
    threshold: float
    tallies: dict[DivergenceCause, Tally]
    """Of the last round that compared this; what was never compared is missing."""
    ended_at: float | None
    """When the last round ended, on the house's clock."""
    given_up: int = 0
    """Rounds that came to no result: the engine died, or there was no room."""


ActorSnapshot = (
    AdmitterSnapshot
    | SchedulerSnapshot
    | PrefillSnapshot
    | DecodeSnapshot
    | CacheSnapshot
    | MonitorSnapshot
    | ProbeSnapshot
)


def with_earlier(shown: ActorSnapshot, earlier: Iterable[ActorSnapshot]) -> ActorSnapshot:
    """The same with what was counted in earlier lives, of which `earlier` holds what the last of them showed."""
    for before in earlier:
        match shown, before:
            case SchedulerSnapshot(), SchedulerSnapshot():
                return replace(shown, preemptions=before.preemptions + shown.preemptions)
            case DecodeSnapshot(), DecodeSnapshot():
                return replace(shown, produced_tokens=before.produced_tokens + shown.produced_tokens)
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
class Trouble:
    """A warning or an error that was logged."""

    at: float
    """On the house's clock."""
    level: str
    """`warning`, `error` or `critical`."""
    who: str
    """Which part of the house, such as `scheduler`."""
    text: str
    """One line."""


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
    probe: ProbeSnapshot | None = None
    """None unless --batch-divergence-monitor is on."""
    engine: Vitals | None = None
    """None while there is no engine."""
    troubles: tuple[Trouble, ...] = ()
    """The last ones, oldest first."""
