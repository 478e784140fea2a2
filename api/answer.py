"""From prompts in ids to the reply, whole or streamed; the same way for chat and for plain completions."""

import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import anyio
import orjson
from quart import Response, current_app

from actors.messages import Usage
from api import sse
from api.call import current_call
from api.context import ApiContext
from api.errors import of_exception
from api.exchange import ChoiceEvent, Exchange, Order
from api.sampling import samplings
from api.schema.generation import GenerationBody

WHOLE_REPORT_EVERY = 32
"""Tokens per report where nobody reads along and no stop string waits to be seen."""

Json = dict[str, object]


class Format(Protocol):
    """How one route writes its choices."""

    prefix: ClassVar[str]
    """What the ids of its replies begin with."""
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def opening(self, index: int) -> Json | None:
        """What a stream says of a choice before there is news of it."""
        ...

    def news(self, event: ChoiceEvent) -> Iterator[Json]:
        """What a stream says of an event: one choice per chunk."""
        ...

    def whole(self, event: ChoiceEvent) -> Json:
        """One choice of a whole reply: all its events in one."""
        ...


@dataclass(slots=True)
class Answer:
    """One reply in the making."""

    exchange: Exchange
    format: Format
    model_id: str
    include_usage: bool
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self) -> Response:
        """Wait for all choices, then reply."""
        choices = [ChoiceEvent(index, "") for index in range(len(self.exchange.order.samplings))]
        while event := await self.exchange.next_event():
            so_far = choices[event.index]
            choices[event.index] = ChoiceEvent(
                event.index, so_far.text + event.text, so_far.scored + event.scored, event.finish_reason
            )
        body = self._envelope(self.format.whole_object, [self.format.whole(choice) for choice in choices])
        body["usage"] = _usage(self.exchange.usage)
        return current_app.response_class(orjson.dumps(body), mimetype="application/json")

    async def frames(self) -> AsyncGenerator[bytes]:
        """The stream: an error ends it with an event of its own, and then there is no [DONE]."""
        for index in range(len(self.exchange.order.samplings)):
            if opening := self.format.opening(index):
                yield self._chunk(opening)
        try:
            while event := await self._next_or_heartbeat():
                if isinstance(event, bytes):
                    yield event
                else:
                    for choice in self.format.news(event):
                        yield self._chunk(choice)
        except Exception as error:
            yield sse.frame(of_exception(error).envelope())
            return
        if self.include_usage:
            yield sse.frame(self._envelope(self.format.chunk_object, []) | {"usage": _usage(self.exchange.usage)})
        yield sse.DONE

    async def _next_or_heartbeat(self) -> ChoiceEvent | bytes | None:
        with anyio.move_on_after(sse.HEARTBEAT_S):
            return await self.exchange.next_event()
        return sse.HEARTBEAT

    def _chunk(self, choice: Json) -> bytes:
        chunk = self._envelope(self.format.chunk_object, [choice])
        if self.include_usage:
            chunk["usage"] = None
        return sse.frame(chunk)

    def _envelope(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self.exchange.id,
            "object": kind,
            "created": self.created,
            "model": self.model_id,
            "choices": choices,
        }


async def answer(
    context: ApiContext, body: GenerationBody, prompts: list[tuple[int, ...]], format: Format, *, arrived_at: float
) -> Response:
    """Put the prompts to the desk and reply; a stream starts once they are let in.

    Raises:
        ApiError: the prompts cannot be served, are not let in, or, for a whole reply, do not finish.
    """
    settings, call = context.settings, current_call.get()
    order = Order(prompts, samplings(body, prompts, context), body.stop, _report_every(context, body))
    exchange = Exchange(f"{format.prefix}-{call.id}", order, desk=context.desk, codec=context.codec)
    call.exchange = exchange
    await exchange.begin(arrived_at=arrived_at, deadline=arrived_at + settings.timeout)
    reply = Answer(exchange, format, context.model_id, body.include_usage)
    return sse.stream(reply.frames()) if body.stream else await reply.whole()


def _report_every(context: ApiContext, body: GenerationBody) -> int:
    if body.stream:
        return context.settings.stream_interval
    return 1 if body.stop else WHOLE_REPORT_EVERY


def _usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
