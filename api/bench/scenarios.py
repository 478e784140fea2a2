"""What is measured: each scenario loads one server and returns plain figures."""

import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import anyio

from api.bench.client import Streamed, Target, user

HEALTH_EVERY_S = 0.05
SETTLING = 5
"""Chunks after which streams that began together run evenly."""

_serial = itertools.count()


def prompt_of(tokens: int) -> str:
    """A prompt of about so many tokens that no other begins like. (` word` is one token to most tokenizers.)"""
    return f"{next(_serial)} says:" + " word" * max(1, tokens - 4)


def short_prompt() -> str:
    """About twenty tokens that a language model goes on with for long, and that no other prompt begins like."""
    return f"{next(_serial)} is the number. Count: 1, 2, 3, 4,"


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie; infinite if there are none."""
    if not values:
        return float("inf")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class BenchError(Exception):
    """A server under test did not answer as it should; the figures would mean nothing."""


async def together(target: Target, prompts: Sequence[str], max_tokens: int) -> list[Streamed]:
    """Stream all prompts at once."""
    return await _at_once(target, [partial(target.stream, prompt, max_tokens) for prompt in prompts])


async def _at_once(target: Target, calls: Sequence[Callable[[], Awaitable[Streamed]]]) -> list[Streamed]:
    results: list[Streamed] = []

    async def one(call: Callable[[], Awaitable[Streamed]]) -> None:
        results.append(await call())

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(one, call)
    for result in results:
        if result.error:
            raise BenchError(f"{target.name} did not finish a stream: {result.error}")
    return results


@dataclass(frozen=True, slots=True)
class Throughput:
    streams: int
    tokens_per_s: float
    """Output tokens of all streams over the time from the first request to the last byte."""
    first_p50_s: float
    first_max_s: float
    gap_p50_s: float
    gap_p99_s: float
    gap_max_s: float


async def throughput(target: Target, streams: int, *, max_tokens: int) -> Throughput:
    started_at = time.perf_counter()
    results = await together(target, [short_prompt() for _ in range(streams)], max_tokens)
    seconds = time.perf_counter() - started_at
    gaps = [gap for result in results for gap in result.gaps]
    firsts = [result.first_s for result in results]
    return Throughput(
        streams=streams,
        tokens_per_s=sum(result.tokens for result in results) / seconds,
        first_p50_s=statistics.median(firsts),
        first_max_s=max(firsts),
        gap_p50_s=quantile(gaps, 0.5),
        gap_p99_s=quantile(gaps, 0.99),
        gap_max_s=max(gaps, default=float("inf")),
    )


@dataclass(frozen=True, slots=True)
class Stall:
    """What a long prompt does to streams that run already."""

    usual_gap_s: float
    """Median gap of the running streams before the prompt came."""
    longest_gap_s: float
    """Their longest gap while it was prefilled."""
    quiet_gap_s: float
    """Their longest gap in as many tokens before it: what the machine and the client do to a pace by themselves."""
    long_first_s: float
    """The long prompt's own time to first token."""

    @property
    def ratio(self) -> float:
        return self.longest_gap_s / self.usual_gap_s


async def stall(target: Target, *, streams: int, prompt_tokens: int, warm_chunks: int, max_tokens: int) -> Stall:
    running = [Streamed(time.perf_counter()) for _ in range(streams)]
    async with anyio.create_task_group() as group:
        for each in running:
            group.start_soon(target.stream, short_prompt(), max_tokens, each)
        while min(len(each.arrivals) for each in running) < warm_chunks:  # noqa: ASYNC110
            await anyio.sleep(0.005)
        sent_at = time.perf_counter()
        long = await target.stream(prompt_of(prompt_tokens), 1)
        answered_at = long.arrivals[0] if long.arrivals else time.perf_counter()
        group.cancel_scope.cancel()
    if long.error:
        raise BenchError(f"{target.name} did not answer the long prompt: {long.error}")
    if not any(each.ended_at == 0.0 for each in running):
        raise BenchError(f"{target.name} ended all streams before the long prompt was answered")
    before = [gap for each in running for gap in _gaps(each, 0.0, sent_at)]
    during = [gap for each in running for gap in _gaps(each, sent_at, answered_at)]
    quiet = [gap for each in running for gap in each.gaps[SETTLING:warm_chunks]]
    longest = max(during, default=answered_at - sent_at)
    return Stall(quantile(before, 0.5), longest, max(quiet), long.first_s)


def _gaps(result: Streamed, begin: float, end: float) -> list[float]:
    """Gaps that overlap the time from `begin` to `end`; one of a stream still open then counts up to there."""
    still_waits = not result.ended_at and result.arrivals and result.arrivals[-1] < end
    moments = [*result.arrivals, end] if still_waits else result.arrivals
    return [after - before for before, after in itertools.pairwise(moments) if after > begin and before < end]


@dataclass(frozen=True, slots=True)
class Health:
    """Latency of GET /health in seconds, under load."""

    p50_s: float
    p99_s: float
    calls: int


async def health(target: Target, *, streams: int, prompt_tokens: int, max_tokens: int) -> Health:
    latencies: list[float] = []

    async def ask() -> None:
        while True:
            latencies.append((await target.get("/health"))[0])
            await anyio.sleep(HEALTH_EVERY_S)

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        prompts = [*(short_prompt() for _ in range(streams - 1)), prompt_of(prompt_tokens)]
        await together(target, prompts, max_tokens)
        group.cancel_scope.cancel()
    return Health(quantile(latencies, 0.5), quantile(latencies, 0.99), len(latencies))


PEOPLE: Mapping[str, object] = {
    "type": "array",
    "minItems": 1000,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 3, "maxLength": 40},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "kind": {"enum": ["child", "adult"]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 3},
        },
        "required": ["name", "age", "kind", "tags"],
        "additionalProperties": False,
    },
}
"""Answers as long as they may be: they go on to max_tokens."""


@dataclass(frozen=True, slots=True)
class Structure:
    """Output tokens per second of streams that run together, from their first tokens on."""

    free_tokens_per_s: float
    constrained_tokens_per_s: float

    @property
    def ratio(self) -> float:
        return self.constrained_tokens_per_s / self.free_tokens_per_s


async def structure(target: Target, *, streams: int, max_tokens: int, rounds: int) -> Structure:
    """The same prompts with and without a schema, in turns, so that the machine's mood is the same for both."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * rounds):
        schema = PEOPLE if turn % 2 else None
        chats = [[user(f"{short_prompt()} Write a very long list of people.")] for _ in range(streams)]
        results = await _at_once(target, [partial(target.chat, chat, max_tokens, schema) for chat in chats])
        rates[schema is not None].append(sum(result.tokens_per_s for result in results))
    return Structure(statistics.median(rates[False]), statistics.median(rates[True]))
