"""GET /metrics for Prometheus: the house at the moment of the scrape, and every call at its end.

Names and units follow prometheus.io/docs/practices/naming: seconds, bytes, ratios; counters end in _total.
"""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from quart import Blueprint, Quart, Response, request

from actors.snapshots import (
    AdmitterSnapshot,
    CacheSnapshot,
    HouseSnapshot,
    ProbeSnapshot,
    RoomState,
    SchedulerSnapshot,
)
from api.call import METHODS, Call
from api.context import ApiContext
from runtime import __version__
from runtime.types import HitType, MemoryUsage, ModelFacts, PressureLevel, RuntimeMode

DURATIONS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOKENS = (
    ("prompt_tokens", "Tokens of prompts, cached ones among them"),
    ("cached_tokens", "Tokens of prompts that were found in the prefix cache"),
    ("completion_tokens", "Tokens of replies"),
)


def show_metrics(app: Quart, context: ApiContext) -> Callable[[Call], None]:
    """Give `app` the route, without a key; returns what has to hear of every call that ended."""
    registry = CollectorRegistry()  # One per app: the library's own is global, and one process may hold many apps.
    registry.register(HouseCollector(context))
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    async def show() -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return app.response_class(encode(registry), content_type=content_type)

    app.register_blueprint(routes)
    return RequestSeries(registry).observe


class RequestSeries:
    """What is counted of calls: by the template of their route, never by the path that a client made up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._duration = Histogram(
            "troupe_request_duration_seconds",
            "From the arrival of a call to the last byte of its reply",
            ["method", "route", "status"],
            buckets=DURATIONS_S,
            registry=registry,
        )
        self._first_byte = Histogram(
            "troupe_request_first_byte_seconds",
            "From the arrival of a call to the first byte of its reply's body",
            ["method", "route"],
            buckets=DURATIONS_S,
            registry=registry,
        )
        self._prompt_tokens, self._cached_tokens, self._completion_tokens = (
            Counter(f"troupe_request_{name}", text, ["route"], registry=registry) for name, text in TOKENS
        )
        self._repetitions = Counter(
            "troupe_request_repetition_stops",
            "Choices ended because they went round in circles",
            ["policy", "trigger"],
            registry=registry,
        )

    def observe(self, call: Call) -> None:
        """Count a call that has ended."""
        method = call.method if call.method in METHODS else "other"
        route = call.route or "none"
        self._duration.labels(method, route, str(call.outcome)).observe(call.lasted_s)
        if call.first_byte_s is not None:
            self._first_byte.labels(method, route).observe(call.first_byte_s)
        if call.exchange:
            cost = call.exchange.cost
            self._prompt_tokens.labels(route).inc(cost.prompt_tokens)
            self._cached_tokens.labels(route).inc(cost.cached_tokens)
            self._completion_tokens.labels(route).inc(cost.completion_tokens)
            for trigger in call.exchange.repetitions:
                self._repetitions.labels(call.exchange.order.repetition, trigger).inc()


class HouseCollector(Collector):
    """The state of the actors, read when somebody scrapes. An actor that does not live now has no series; the counters
    of the engine room's actors start again with each of its lives, as Prometheus expects of a restart."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        house = self._context.desk.snapshot()
        yield from self._server(house)
        if house.admitter:
            yield from _admitter(house.admitter)
        if house.scheduler:
            yield from _scheduler(house.scheduler)
        if house.cache:
            yield from _cache(house.cache)
        if house.probe:
            yield from _divergence(house.probe)
        yield _counter("engine_steps", "Decode steps, over all lives of the engine", house.steps_executed)
        if house.facts:
            yield from _model(house.facts)
        if house.monitor:
            yield _states("engine_memory_pressure", "How near the machine is to its memory's end", house.monitor.level)
            yield from _memory(house.monitor.usage) if house.monitor.usage else ()

    def _server(self, house: HouseSnapshot) -> Iterator[Metric]:
        yield _info("server", "What runs here", {"version": __version__, "model": self._context.model_id})
        yield _gauge("server_uptime_seconds", "Since the house opened", house.uptime_s)
        yield _states("server_state", "How the engine room is", house.room)
        yield _labelled(CounterMetricFamily, "server_restarts", "Restarts, by supervisor", "supervisor", house.restarts)
        boxes = house.mailboxes
        depths = {name: box.depth for name, box in boxes.items()}
        handled = {name: box.handled for name, box in boxes.items()}
        yield _labelled(GaugeMetricFamily, "server_mailbox_messages", "Mail not yet read, by actor", "actor", depths)
        yield _labelled(CounterMetricFamily, "server_messages_handled", "Mail handled, by actor", "actor", handled)


def _admitter(admitter: AdmitterSnapshot) -> Iterator[Metric]:
    yield _gauge("server_requests_open", "Requests let in and not yet ended", len(admitter.open_requests))
    yield _gauge("server_requests_open_peak", "The most there ever were", admitter.peak_open)
    yield _gauge("server_credits", "Requests that may be open at once", admitter.credits)
    yield _gauge("server_draining", "1 while nobody is let in any more", admitter.draining)
    yield _counter("server_requests_closed", "Requests that were let in and ended", admitter.requests_closed)
    yield _counter("server_requests_rejected", "Requests refused at the door", admitter.rejected)
    yield _counter("server_prompt_tokens", "Prompt tokens of requests that ended", admitter.prompt_tokens)
    yield _counter("server_completion_tokens", "Tokens produced for requests that ended", admitter.completion_tokens)


def _scheduler(scheduler: SchedulerSnapshot) -> Iterator[Metric]:
    phases = {
        "queued": len(scheduler.waiting),
        "prefill": len(scheduler.prefilling),
        "generation": len(scheduler.decoding),
    }
    yield _labelled(GaugeMetricFamily, "scheduler_sequences", "Sequences, by phase", "phase", phases)
    yield _counter("scheduler_prefill_turns", "Turns of the engine given to prompts", scheduler.prefill_turns)
    yield _counter("scheduler_preemptions", "Sequences put back in line for their memory", scheduler.preemptions)
    yield _counter("scheduler_decode_steps", "Steps of the running batch", scheduler.decode_steps)
    yield _gauge("scheduler_prefill_budget_tokens", "The largest prefill turn beside streams", scheduler.prefill_budget)
    if scheduler.usual_step_s is not None:
        yield _gauge("scheduler_usual_step_seconds", "A decode step while no prompt comes in", scheduler.usual_step_s)
    modes = {mode.value: float(mode is scheduler.mode) for mode in (RuntimeMode.SIMPLE, RuntimeMode.BATCHED)}
    yield _labelled(GaugeMetricFamily, "scheduler_mode", "How many sequences run at once", "mode", modes)
    yield _gauge("scheduler_serialized", "1 while one runs at a time because answers diverged", scheduler.serialised)


def _divergence(probe: ProbeSnapshot) -> Iterator[Metric]:
    yield _counter("divergence_rounds", "Rounds of probes that ended with a result", probe.rounds)
    yield _counter("divergence_rounds_given_up", "Rounds that came to no result", probe.given_up)
    yield _gauge("divergence_diverged", "1 if the last round's agreement was below the threshold", probe.diverged)
    yield _gauge("divergence_threshold_ratio", "The agreement below which answers have diverged", probe.threshold)
    agreement = {cause.value: tally.agreement for cause, tally in probe.tallies.items()}
    text = "Tokens in the same place that were the same in the last round, 0 to 1, by what the two runs differ in"
    yield _labelled(GaugeMetricFamily, "divergence_agreement_ratio", text, "cause", agreement)


def _cache(cache: CacheSnapshot) -> Iterator[Metric]:
    yield _info("cache", "How prefixes are kept", {"strategy": cache.strategy})
    yield _gauge("cache_budget_bytes", "Memory that KV caches may take", cache.budget_bytes)
    yield _gauge("cache_leased_bytes", "Set aside for running sequences", cache.leased_bytes)
    yield _gauge("cache_stored_bytes", "Taken by kept prefixes", cache.stored_bytes)
    yield _gauge("cache_leases", "Running sequences with a lease", cache.leases)
    yield _gauge("cache_entries", "Kept prefixes", cache.entries)
    yield _gauge("cache_pieces", "What they are made of; what they share counts once", cache.pieces)
    yield _gauge("cache_disk_bytes", "Taken by prefixes on disk", cache.disk_bytes)
    yield _gauge("cache_disk_entries", "Prefixes on disk", cache.disk_entries)
    yield _counter("cache_lookups", "Prompts looked up", sum(cache.hits.values()))
    hits = {each.value: cache.hits.get(each, 0) for each in HitType if each is not HitType.MISS}
    yield _labelled(CounterMetricFamily, "cache_hits", "Prompts of which something was kept, by type", "type", hits)
    yield _counter("cache_evictions", "Prefixes let go", cache.evictions)


def _model(facts: ModelFacts) -> Iterator[Metric]:
    yield _info("engine", "What the model runs on", {"device": facts.device, "dtype": facts.dtype})
    yield _gauge("engine_context_tokens", "Tokens a sequence may hold", facts.context_tokens)
    yield _gauge("engine_weights_bytes", "Taken by the model's weights", facts.weight_bytes)


def _memory(usage: MemoryUsage) -> Iterator[Metric]:
    yield _gauge("engine_memory_active_bytes", "Memory that arrays take", usage.active_bytes)
    yield _gauge("engine_memory_peak_bytes", "The most they ever took", usage.peak_bytes)
    yield _gauge("engine_memory_cache_bytes", "Freed and kept for new arrays", usage.cache_bytes)
    yield _gauge("engine_memory_resident_bytes", "Resident memory of the engine's process", usage.resident_bytes)
    yield _gauge("engine_system_memory_used_ratio", "Of the machine's memory, 0 to 1", usage.system_used_fraction)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"troupe_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"troupe_{name}", text, value=value)


def _info(name: str, text: str, value: dict[str, str]) -> Metric:
    return InfoMetricFamily(f"troupe_{name}", text, value=value)


def _labelled(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    text: str,
    label: str,
    values: Mapping[str, float],
) -> Metric:
    family = kind(f"troupe_{name}", text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _states(name: str, text: str, now: RoomState | PressureLevel) -> Metric:
    """1 for the state it is in, 0 for the others."""
    states = {state.value: float(state is now) for state in type(now)}
    return _labelled(GaugeMetricFamily, name, text, "state", states)
