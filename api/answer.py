"""From prompts in ids to the reply, whole or streamed; the same way for every dialect."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import anyio
import orjson
from quart import Response, current_app

from api import sse
from api.call import current_call
from api.context import ApiContext
from api.errors import ApiError, of_exception
from api.exchange import ChoiceEvent, Cost, Exchange, Order
from api.parsers.parts import joined
from api.repetition import repetition_policy
from api.sampling import samplings
from api.schema.generation import GenerationBody
from api.text.choice import PLAIN, Reading

WHOLE_REPORT_EVERY = 32
"""Tokens per report where nobody reads along and no stop string waits to be seen."""

Json = dict[str, object]


class Writer(Protocol):
    """Writes one reply in one dialect."""

    @property
    def id(self) -> str:
        """What the reply is called."""
        ...

    def whole(self, choices: Sequence[ChoiceEvent], cost: Cost) -> Json:
        """The reply in one: of each choice all its events in one, in order."""
        ...

    def opening(self) -> Iterator[bytes]:
        """What a stream says before there is news."""
        ...

    def news(self, event: ChoiceEvent) -> Iterator[bytes]:
        """What a stream says of an event."""
        ...

    def closing(self, cost: Cost) -> Iterator[bytes]:
        """What a stream says when all choices have ended."""
        ...

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """How a stream ends that cannot go on."""
        ...

    def heartbeat(self) -> bytes:
        """What a stream says when there is nothing to say."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What the writer's reply is to answer."""

    body: GenerationBody
    prompts: Sequence[tuple[int, ...]]
    arrived_at: float
    """On the desk's clock."""
    reading: Reading = PLAIN
    grammar: str = ""
    """See Sampling."""
    score_prompt: int | None = None
    """See Request."""


async def answer(context: ApiContext, question: Question, writer: Writer) -> Response:
    """Put the prompts to the desk and reply; a stream starts once they are let in.

    Raises:
        ApiError: the prompts cannot be served, are not let in, or, for a whole reply, do not finish.
    """
    exchange = Exchange(writer.id, _order(context, question), desk=context.desk, codec=context.codec)
    call = current_call.get()
    call.exchange, call.model = exchange, question.body.model
    arrived_at = question.arrived_at
    await exchange.begin(arrived_at=arrived_at, deadline=arrived_at + context.settings.timeout)
    if question.body.stream:
        return sse.stream(_frames(exchange, writer))
    body = writer.whole(await _choices(exchange), exchange.cost)
    return current_app.response_class(orjson.dumps(body), mimetype="application/json")


def _order(context: ApiContext, question: Question) -> Order:
    body = question.body
    whole_every = 1 if body.stop else WHOLE_REPORT_EVERY
    repetition = repetition_policy(body, context.settings, constrained=bool(question.grammar))
    return Order(
        prompts=question.prompts,
        samplings=samplings(body, question.prompts, context, grammar=question.grammar),
        stops=body.stop,
        report_every=context.settings.stream_interval if body.stream else whole_every,
        reading=question.reading,
        cache_salt=body.cache_salt or "",
        score_prompt=question.score_prompt,
        # A harness that has prompts scored wants every token that it asked for.
        repetition=repetition if question.score_prompt is None else None,
    )


async def _choices(exchange: Exchange) -> list[ChoiceEvent]:
    """All that happens, by choice."""
    news: list[list[ChoiceEvent]] = [[] for _ in exchange.order.samplings]
    while event := await exchange.next_event():
        news[event.index].append(event)
    return [_whole(index, events) for index, events in enumerate(news)]


def _whole(index: int, events: Sequence[ChoiceEvent]) -> ChoiceEvent:
    """All that happened to one choice, as one event."""
    parts = joined(part for event in events for part in event.parts)
    scored = tuple(token for event in events for token in event.scored)
    prompt = tuple(token for event in events for token in event.prompt)
    return ChoiceEvent(index, parts, scored, events[-1].ending, prompt)


async def _frames(exchange: Exchange, writer: Writer) -> AsyncGenerator[bytes]:
    """The stream: an error ends it with an event of its own, and then there is no clean end."""
    for frame in writer.opening():
        yield frame
    try:
        while event := await _next_or_heartbeat(exchange, writer):
            if isinstance(event, bytes):
                yield event
            else:
                for frame in writer.news(event):
                    yield frame
        for frame in writer.closing(exchange.cost):
            yield frame
    except Exception as error:
        for frame in writer.failure(of_exception(error)):
            yield frame


async def _next_or_heartbeat(exchange: Exchange, writer: Writer) -> ChoiceEvent | bytes | None:
    with anyio.move_on_after(sse.HEARTBEAT_S):
        return await exchange.next_event()
    return writer.heartbeat()
