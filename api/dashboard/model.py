"""Snapshots in, figures out: rates from differences, rows of requests, and trends."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from actors.snapshots import HouseSnapshot
from api.dashboard.actors import ActorRow, actor_rows
from api.dashboard.trends import SAMPLES, Recorder, Trend
from runtime.types import HitType, RequestId


class Phase(StrEnum):
    """How far a request is."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request that is inside."""

    request_id: RequestId
    phase: Phase
    age_s: float | None
    """Since it came."""
    done: int = 0
    """Tokens: of its prompt while that is read, of its output then."""
    total: int = 0
    """The most that `done` can be; 0 while it waits."""
    tokens_per_s: float | None = None
    hit: HitType | None = None
    cached: int = 0
    """Tokens of the prompt that the prefix cache had."""
    ttft_s: float | None = None

    @property
    def progress(self) -> float:
        """0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Trends:
    """Of the figures whose past says more than they do."""

    tokens_per_s: Trend = field(default_factory=Trend)
    step_s: Trend = field(default_factory=Trend)
    inside: Trend = field(default_factory=Trend)
    memory: Trend = field(default_factory=Trend)
    """Bytes that the engine has in use."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All that the dashboard can show of one moment."""

    house: HouseSnapshot
    actors: tuple[ActorRow, ...]
    requests: tuple[RequestRow, ...]
    """In the order in which they came."""
    tokens_per_s: float | None
    """Of output, all requests together; None until there are two snapshots."""
    trends: Trends
    span_s: float
    """How long a stretch of time trends cover."""


class Model:
    """Remembers of the past what the next figures need."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._before: HouseSnapshot | None = None
        self._recorders = {name: Recorder() for name in Trends.__dataclass_fields__}

    def take(self, house: HouseSnapshot) -> Figures:
        """The figures of `house`. Where it began later than the house before it, the server has been restarted, and
        differences begin anew."""
        before = self._before if self._before and _is_later(self._before, house) else None
        self._before = house
        tokens_per_s = _tokens_per_s(before, house)
        self._record(house, tokens_per_s)
        trends = Trends(**{name: recorder.trend() for name, recorder in self._recorders.items()})
        requests = tuple(_request_rows(before, house))
        return Figures(house, actor_rows(before, house), requests, tokens_per_s, trends, SAMPLES * self._interval_s)

    def _record(self, house: HouseSnapshot, tokens_per_s: float | None) -> None:
        usage = house.monitor.usage if house.monitor else None
        samples = {
            "tokens_per_s": tokens_per_s,
            "step_s": house.scheduler.step_s if house.scheduler and house.scheduler.decoding else None,
            "inside": float(len(house.admitter.open_requests)) if house.admitter else None,
            "memory": float(usage.active_bytes) if usage else None,
        }
        for name, recorder in self._recorders.items():
            recorder.take(samples[name])


def _is_later(before: HouseSnapshot, house: HouseSnapshot) -> bool:
    return house.at > before.at and house.uptime_s > before.uptime_s


def _tokens_per_s(before: HouseSnapshot | None, house: HouseSnapshot) -> float | None:
    """None also where the worker that counts is a new one."""
    if not (before and before.decode and house.decode):
        return None
    produced = house.decode.produced_tokens - before.decode.produced_tokens
    return produced / (house.at - before.at) if produced >= 0 else None


def _request_rows(before: HouseSnapshot | None, house: HouseSnapshot) -> Iterator[RequestRow]:
    if house.admitter is None:
        return
    open_requests, arrived_at = house.admitter.open_requests, house.admitter.arrived_at
    prefilling, decoding = _prefilling(before, house), _decoding(house)
    for index, request_id in enumerate(open_requests):
        age_s = max(0.0, house.at - arrived_at[index]) if index < len(arrived_at) else None
        if request_id in decoding:
            yield RequestRow(request_id, Phase.DECODE, age_s, *decoding[request_id])
        elif request_id in prefilling:
            yield RequestRow(request_id, Phase.PREFILL, age_s, *prefilling[request_id])
        else:
            yield RequestRow(request_id, Phase.WAITING, age_s)


def _prefilling(
    before: HouseSnapshot | None, house: HouseSnapshot
) -> dict[RequestId, tuple[int, int, float | None, HitType, int]]:
    earlier = (
        {each.request_id: each.done_tokens for each in before.prefill.sequences} if before and before.prefill else {}
    )
    elapsed_s = house.at - before.at if before else 0.0
    rows: dict[RequestId, tuple[int, int, float | None, HitType, int]] = {}
    for each in house.prefill.sequences if house.prefill else ():
        done = each.done_tokens - earlier.get(each.request_id, each.done_tokens)
        speed = done / elapsed_s if done > 0 else None
        rows[each.request_id] = (each.done_tokens, each.total_tokens, speed, each.hit_type, each.cached_tokens)
    return rows


def _decoding(
    house: HouseSnapshot,
) -> dict[RequestId, tuple[int, int, float | None, HitType, int, float | None]]:
    return {
        each.request_id: (
            each.generated_tokens,
            each.max_tokens,
            each.tokens_per_second,
            each.hit_type,
            each.cached_tokens,
            each.ttft_s,
        )
        for each in (house.decode.sequences if house.decode else ())
    }
