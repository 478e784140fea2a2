"""GET /health, /v1/status and /v1/queue/stats in the words that users of other servers know, out of a snapshot."""

from dataclasses import asdict
from itertools import zip_longest

from actors.snapshots import (
    CacheSnapshot,
    DecodingSequence,
    HouseSnapshot,
    MonitorSnapshot,
    PrefillingSequence,
    ProbeSnapshot,
    RoomState,
    SchedulerSnapshot,
)
from runtime.settings import Settings
from runtime.types import HitType, MemoryUsage, RequestId

Json = dict[str, object]

_STATUS = {RoomState.READY: "running", RoomState.RESTARTING: "stopped", RoomState.LOADING: "not_loaded"}


def health(house: HouseSnapshot) -> str:
    """One word: `ok` if the next request would be served."""
    if house.admitter and house.admitter.draining:
        return "draining"
    return "ok" if house.room is RoomState.READY else house.room.value


def queue_stats(house: HouseSnapshot, settings: Settings) -> Json:
    """`active_requests` are all that are inside; `queue_size` of them wait, for their turn or for the engine."""
    inside = len(house.admitter.open_requests) if house.admitter else 0
    batchable = house.facts is None or house.facts.batchable
    return {
        "running": health(house) == "ok",
        "queue_size": inside - _on_stage(house),
        "max_queue_size": settings.queue_size,
        "active_requests": inside,
        "max_concurrency": settings.max_concurrency if batchable else 1,
    }


def status(house: HouseSnapshot, settings: Settings, model_id: str) -> Json:
    """Gigabytes are 10^9 bytes; megabytes are 2^20, as in --cache-memory-mb. `runtime` counts open requests,
    the waiting ones among them; preemptions are those of this life of the engine room; what nobody measured yet is
    null."""
    admitter, running = house.admitter, _on_stage(house)
    open_requests = admitter.open_requests if admitter else ()
    return {
        "status": _STATUS[house.room],
        "model": model_id,
        "uptime_s": round(house.uptime_s, 3),
        "steps_executed": house.steps_executed,
        "num_running": running,
        "num_waiting": len(open_requests) - running,
        "num_preemptions": house.scheduler.preemptions if house.scheduler else 0,
        "total_requests_processed": admitter.requests_closed if admitter else 0,
        "total_prompt_tokens": admitter.prompt_tokens if admitter else 0,
        "total_completion_tokens": admitter.completion_tokens if admitter else 0,
        "metal": _metal(house.monitor.usage if house.monitor else None),
        "memory": _memory(house.monitor),
        "cache": cache(house, settings),
        "runtime": _runtime(house.scheduler)
        | {
            "active_concurrency": len(open_requests),
            "peak_concurrency": admitter.peak_open if admitter else 0,
        },
        "divergence": _divergence(house.probe, house.at) if house.probe else None,
        "requests": _requests(house, open_requests),
    }


def cache(house: HouseSnapshot, settings: Settings) -> Json:
    """What is kept, and what has come of it since the server started. `type` is the strategy that was chosen,
    before that the one that was asked for; `hits` counts requests by what was found for them, misses among them."""
    kept = house.cache or CacheSnapshot(settings.strategy, 0, 0, 0, 0, 0, 0, {}, 0, 0, 0)
    hits = {each.value: kept.hits.get(each, 0) for each in HitType}
    lookups = sum(hits.values())
    return {
        "type": kept.strategy.value,
        "entries": kept.entries,
        "hit_rate": 1 - hits[HitType.MISS] / lookups if lookups else 0.0,
        "memory_mb": kept.stored_bytes / 2**20,
        "disk_entries": kept.disk_entries,
        "disk_mb": kept.disk_bytes / 2**20,
        "hits": hits,
        "evictions": kept.evictions,
    }


def _on_stage(house: HouseSnapshot) -> int:
    return len(house.scheduler.prefilling) + len(house.scheduler.decoding) if house.scheduler else 0


def _runtime(scheduler: SchedulerSnapshot | None) -> Json:
    """How many run at once."""
    return {
        "mode": scheduler.mode.value if scheduler else None,
        "serialized": bool(scheduler and scheduler.serialised),
    }


def _divergence(probe: ProbeSnapshot, now: float) -> Json:
    return {
        "rounds": probe.rounds,
        "given_up": probe.given_up,
        "under_way": probe.under_way,
        "diverged": probe.diverged,
        "threshold": probe.threshold,
        "seconds_since_round": None if probe.ended_at is None else round(now - probe.ended_at, 3),
        "tallies": {cause.value: asdict(tally) for cause, tally in probe.tallies.items()},
    }


def _metal(usage: MemoryUsage | None) -> Json:
    """`metal` is the name that users know; on other devices it is their memory."""
    return {
        "active_memory_gb": usage.active_bytes / 1e9 if usage else None,
        "peak_memory_gb": usage.peak_bytes / 1e9 if usage else None,
        "cache_memory_gb": usage.cache_bytes / 1e9 if usage else None,
    }


def _memory(monitor: MonitorSnapshot | None) -> Json:
    """How near the machine is to its memory's end, and what of it the engine takes."""
    usage = monitor.usage if monitor else None
    return {
        "pressure": monitor.level.value if monitor else None,
        "engine_resident_gb": usage.resident_bytes / 1e9 if usage else None,
        "system_used_percent": usage.system_used_fraction * 100 if usage else None,
    }


def _requests(house: HouseSnapshot, open_requests: tuple[RequestId, ...]) -> list[Json]:
    prefilling = {each.request_id: each for each in house.prefill.sequences} if house.prefill else {}
    decoding = {each.request_id: each for each in house.decode.sequences} if house.decode else {}
    arrived_at = house.admitter.arrived_at if house.admitter else ()
    shown = []
    for request_id, came in zip_longest(open_requests, arrived_at[: len(open_requests)]):
        if request_id in decoding:
            row = _decoding(decoding[request_id])
        elif request_id in prefilling:
            row = _prefilling(prefilling[request_id])
        else:
            row = _row(request_id, "queued")
        shown.append(row | {"age_s": None if came is None else round(house.at - came, 3)})
    return shown


def _prefilling(sequence: PrefillingSequence) -> Json:
    return _row(sequence.request_id, "prefill") | {
        "progress": sequence.done_tokens / sequence.total_tokens,
        "cache_hit_type": sequence.hit_type.value,
        "cached_tokens": sequence.cached_tokens,
        "max_tokens": sequence.max_tokens,
    }


def _decoding(sequence: DecodingSequence) -> Json:
    return _row(sequence.request_id, "generation") | {
        "tokens_per_second": sequence.tokens_per_second,
        "ttft_s": sequence.ttft_s,
        "progress": sequence.generated_tokens / sequence.max_tokens,
        "cache_hit_type": sequence.hit_type.value,
        "cached_tokens": sequence.cached_tokens,
        "generated_tokens": sequence.generated_tokens,
        "max_tokens": sequence.max_tokens,
    }


def _row(request_id: RequestId, phase: str) -> Json:
    return {
        "request_id": request_id,
        "phase": phase,
        "tokens_per_second": 0.0,
        "ttft_s": None,
        "progress": 0.0,
        "cache_hit_type": None,
        "cached_tokens": 0,
        "generated_tokens": 0,
        "max_tokens": None,
    }
