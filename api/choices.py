"""How OpenAI's two routes for choices write: an envelope around a list of choices, whole or chunk by chunk."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from api import sse
from api.answer import Json
from api.call import current_call
from api.diagnostics import Diagnosis
from api.errors import ApiError
from api.exchange import ChoiceEvent, Cost, Ending


def new_id(prefix: str) -> str:
    """What the reply to the call under way is called."""
    return f"{prefix}-{current_call.get().id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoicesWriter(ABC):
    """What chat.completion and text_completion have in common; see Writer."""

    id: str
    model: str
    n: int
    """How many choices there are."""
    include_usage: bool
    """Whether a stream tells what it cost."""
    diagnosis: Diagnosis | None
    """What diagnostics the reply is to hold."""
    created: int = field(default_factory=lambda: int(time.time()))

    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    @abstractmethod
    def first(self, index: int) -> Json | None:
        """What a stream says of a choice before there is news of it."""

    @abstractmethod
    def chunks(self, event: ChoiceEvent) -> Iterator[Json]:
        """What a stream says of an event: one choice per chunk."""

    @abstractmethod
    def choice(self, event: ChoiceEvent) -> Json:
        """One choice of a whole reply."""

    def whole(self, choices: Sequence[ChoiceEvent], cost: Cost) -> Json:
        body = self._envelope(self.whole_object, [self.choice(choice) for choice in choices])
        return body | {"usage": usage(cost)} | self._diagnostics(cost)

    def opening(self) -> Iterator[bytes]:
        for index in range(self.n):
            if first := self.first(index):
                yield self._chunk(first)

    def news(self, event: ChoiceEvent) -> Iterator[bytes]:
        for choice in self.chunks(event):
            yield self._chunk(choice)

    def closing(self, cost: Cost) -> Iterator[bytes]:
        last: Json = {"usage": usage(cost)} if self.include_usage else {}
        if last := last | self._diagnostics(cost):
            yield sse.frame(self._envelope(self.chunk_object, []) | last)
        yield sse.DONE

    def failure(self, error: ApiError) -> Iterator[bytes]:
        yield sse.frame(error.envelope())

    def heartbeat(self) -> bytes:
        return sse.HEARTBEAT

    def _diagnostics(self, cost: Cost) -> Json:
        return {"diagnostics": self.diagnosis.told(cost)} if self.diagnosis else {}

    def _chunk(self, choice: Json) -> bytes:
        chunk = self._envelope(self.chunk_object, [choice])
        if self.include_usage:
            chunk["usage"] = None
        return sse.frame(chunk)

    def _envelope(self, kind: str, choices: list[Json]) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def stop_reason(ending: Ending | None) -> Json:
    """What is said of a choice beside its finish_reason, if it was ended because it went round in circles."""
    if ending is None or ending.repetition is None:
        return {}
    return {"stop_reason": "repetition_detected", "stop_reason_detail": ending.repetition}


def repetition_detected(ending: Ending | None) -> Json:
    """The same in the dialects that have a stop_reason of their own, or none: a field that none of them has."""
    return {"repetition_detected": ending.repetition} if ending and ending.repetition else {}


def usage(cost: Cost) -> Json:
    """What a call cost, in OpenAI's words."""
    return {
        "prompt_tokens": cost.prompt_tokens,
        "completion_tokens": cost.completion_tokens,
        "total_tokens": cost.prompt_tokens + cost.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cost.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": cost.thinking_tokens},
    }
