"""The `diagnostics` of a reply, for clients that set `include_diagnostics`; nothing in the house routes on them."""

from collections.abc import Callable
from dataclasses import dataclass

from actors.snapshots import HouseSnapshot, ProbeSnapshot
from api.context import ApiContext
from api.exchange import Cost
from api.schema.generation import GenerationBody

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """How much one reply is to tell."""

    context_tokens: int
    """What a sequence may hold (ModelFacts)."""
    snapshot: Callable[[], HouseSnapshot] | None = None
    """For level `deep`: how the house is at the time of the reply."""

    def told(self, cost: Cost) -> Json:
        """Of a reply that cost so much."""
        told = basic(used_tokens=cost.longest, context_tokens=self.context_tokens)
        if self.snapshot is None:
            return told
        return {**told, "level": "deep", "runtime": runtime(self.snapshot(), cost)}


def diagnosis(body: GenerationBody, context: ApiContext) -> Diagnosis | None:
    """What `body` asks for; None is nothing.

    Raises:
        ApiError: 503; the model is not loaded yet.
    """
    if not body.include_diagnostics:
        return None
    deep = body.diagnostics_level == "deep"
    return Diagnosis(context.facts().context_tokens, context.desk.snapshot if deep else None)


def basic(*, used_tokens: int, context_tokens: int, images: int = 0) -> Json:
    """Level `basic`: how full the context is, and how much there was to look at.

    Args:
        used_tokens: what the longest of the reply's sequences holds, prompt and output together.
        context_tokens: what a sequence may hold (ModelFacts).
    """
    return {
        "level": "basic",
        "context": {
            "used_tokens": used_tokens,
            "limit_tokens": context_tokens,
            "remaining_tokens": max(0, context_tokens - used_tokens),
            "used_fraction": round(used_tokens / context_tokens, 4),
        },
        "visual": {"images": images},
    }


def runtime(house: HouseSnapshot, cost: Cost) -> Json:
    """What level `deep` adds: how reliably this reply was made. Of other requests it has numbers alone."""
    scheduler, inside = house.scheduler, len(house.admitter.open_requests) if house.admitter else 0
    active = len(scheduler.prefilling) + len(scheduler.decoding) if scheduler else 0
    return {
        "room": house.room.value,
        "restarts": dict(house.restarts),
        "mode": scheduler.mode.value if scheduler else None,
        "serialized": scheduler is not None and scheduler.serialised,
        "active_requests": active,
        "waiting_requests": max(0, inside - active),
        "memory_pressure": house.monitor.level.value if house.monitor else None,
        "engine_silent_s": round(house.engine.silent_s, 3) if house.engine else None,
        "cached_tokens": cost.cached_tokens,
        "requeued": cost.requeued,
        "divergence": _divergence(house.probe) if house.probe else None,
    }


def _divergence(probe: ProbeSnapshot) -> Json:
    return {
        "diverged": probe.diverged,
        "rounds": probe.rounds,
        "agreement": {cause.value: round(tally.agreement, 4) for cause, tally in probe.tallies.items()},
    }
