"""One HTTP call that wants tokens: prompts become requests, replies become text, and leaving cancels."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, assert_never

from actors.desk import FrontDesk
from actors.messages import (
    Accepted,
    Cancelled,
    Failed,
    Finished,
    PrefillAdvanced,
    PromptScored,
    Rejected,
    Reply,
    Request,
    Staged,
    TokensDecoded,
    Usage,
)
from actors.replies import Replies
from api.errors import ApiError, of_last_word
from api.parsers.parts import Part, joined
from api.text.choice import PLAIN, ChoiceText, Reading, ScoredToken
from api.text.codec import TextCodec
from api.text.loops import RepetitionWatch
from api.text.repetition import RepetitionTrigger
from api.times import Times
from runtime.types import CancelCause, FinishReason, RepetitionPolicy, RequestId, Sampling, TokenOutput

log = logging.getLogger("troupe.exchange")


@dataclass(frozen=True, slots=True)
class Order:
    """What one call asks for: the same number of choices for each prompt."""

    prompts: Sequence[tuple[int, ...]]
    samplings: Sequence[Sampling]
    """One per choice: those of the first prompt, then those of the next."""
    stops: Sequence[str]
    report_every: int
    """How many tokens to wait for before there is news of a choice."""
    reading: Reading = PLAIN
    cache_salt: str = ""
    """See Request."""
    score_prompt: int | None = None
    """See Request."""
    repetition: RepetitionPolicy | None = None
    """When a choice that goes round in circles is ended; None for never."""

    @property
    def choices_per_prompt(self) -> int:
        return len(self.samplings) // len(self.prompts)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a choice ended."""

    reason: Literal["stop", "length", "tool_calls"]
    stop_string: str | None = None
    """The one that was found, if that is why."""
    repetition: RepetitionTrigger | None = None
    """How it went round in circles, if that is why."""


@dataclass(frozen=True, slots=True)
class ChoiceEvent:
    """News of one choice: more parts, its end, or both."""

    index: int
    parts: tuple[Part, ...] = ()
    scored: tuple[ScoredToken, ...] = ()
    ending: Ending | None = None
    """Set with its last event."""
    prompt: tuple[TokenOutput, ...] = ()
    """Its prompt, scored; its first event if the order asks for it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call cost, in tokens."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    thinking_tokens: int
    """Those of the completion that were thinking."""
    longest: int
    """What the longest sequence holds, prompt and output together."""
    requeued: int = 0
    """How often a sequence went back in line: preempted, or by the death of an engine."""


@dataclass(slots=True)
class _Choice:
    index: int
    request_id: RequestId
    text: ChoiceText
    prompt_tokens: int
    times: Times
    usage: Usage | None = None
    """What the house says it cost, from the last word on."""

    def ending(self, reason: FinishReason | None) -> Ending | None:
        """How it ended, given what the engine says of it."""
        if not (reason or self.text.stopped):
            return None
        if reason is FinishReason.LENGTH and not self.text.stopped:
            return Ending("length")
        # A stop string behind calls changes nothing about them: they want their results.
        if self.text.called:
            return Ending("tool_calls", repetition=self.text.repetition)
        return Ending("stop", self.text.stop_string, self.text.repetition)


class Exchange:
    """Puts an order to the front desk and gives what comes of it, event by event.

    `leave` must be called in the end, whatever happened.
    """

    def __init__(self, exchange_id: str, order: Order, *, desk: FrontDesk, codec: TextCodec) -> None:
        self.id = exchange_id
        self.order = order
        self._desk = desk
        self._replies = Replies()
        self._choices: dict[RequestId, _Choice] = {}
        for index in range(len(order.samplings)):
            request_id = RequestId(f"{exchange_id}-{index}")
            prompt = order.prompts[index // order.choices_per_prompt]
            watch = RepetitionWatch(order.repetition, partial(codec.text_of, prompt)) if order.repetition else None
            text = ChoiceText(codec, order.stops, order.reading, watch)
            self._choices[request_id] = _Choice(index, request_id, text, len(prompt), Times(len(prompt)))
        self._open: set[RequestId] = set()
        """Requests that may still be running."""
        self._timeout_s = 0.0

    async def begin(self, *, arrived_at: float, deadline: float) -> None:
        """Ask for all requests to come in, and wait for the answer. Times are the desk's.

        Raises:
            ApiError: they are not let in.
        """
        self._timeout_s = deadline - arrived_at
        self._open.update(self._choices)
        requests = tuple(self._request(choice, arrived_at, deadline) for choice in self._choices.values())
        self._desk.admit(requests)
        # All are let in or none, so the first reply tells.
        reply = await anext(self._replies)
        self._choices[reply.request_id].times.note(reply)
        if isinstance(reply, Rejected):
            self._open.clear()
            raise self._failed(reply)

    async def next_event(self) -> ChoiceEvent | None:
        """The next event; None once every request had its last word. Cancelling it loses nothing.

        Raises:
            ApiError: a request ended without an answer; the others go on until `leave`.
        """
        while self._open:
            if event := self._event(await anext(self._replies)):
                return event
        return None

    @property
    def cost(self) -> Cost:
        """What it cost so far: each prompt counts once, and what of it was cached by its first choice's account."""
        first = [c for c in self._choices.values() if c.index % self.order.choices_per_prompt == 0]
        return Cost(
            prompt_tokens=sum(choice.prompt_tokens for choice in first),
            cached_tokens=sum(choice.usage.cached_tokens for choice in first if choice.usage),
            completion_tokens=sum(choice.text.tokens for choice in self._choices.values()),
            thinking_tokens=sum(choice.text.thinking_tokens for choice in self._choices.values()),
            longest=max(choice.prompt_tokens + choice.text.tokens for choice in self._choices.values()),
            requeued=sum(max(0, choice.times.runs - 1) for choice in self._choices.values()),
        )

    @property
    def repetitions(self) -> list[RepetitionTrigger]:
        """What choices were ended for that went round in circles."""
        return [found for choice in self._choices.values() if (found := choice.text.repetition)]

    @property
    def times(self) -> Mapping[RequestId, Times]:
        """Of each choice, in their order: by the name of its request."""
        return {request_id: choice.times for request_id, choice in self._choices.items()}

    def leave(self) -> None:
        """End whatever still runs; nobody is interested any more."""
        for request_id in self._choices:
            if request_id in self._open:
                self._desk.cancel(request_id, CancelCause.CLIENT_LEFT)
        self._open.clear()
        self._replies.close()
        for choice in self._choices.values():
            choice.times.left()

    def _request(self, choice: _Choice, arrived_at: float, deadline: float) -> Request:
        return Request(
            request_id=choice.request_id,
            prompt_ids=self.order.prompts[choice.index // self.order.choices_per_prompt],
            sampling=self.order.samplings[choice.index],
            arrived_at=arrived_at,
            deadline=deadline,
            sink=self._replies.sink(choice.request_id),
            report_every=self.order.report_every,
            cache_salt=self.order.cache_salt,
            score_prompt=self.order.score_prompt,
        )

    def _event(self, reply: Reply) -> ChoiceEvent | None:
        choice = self._choices[reply.request_id]
        choice.times.note(reply)
        match reply:
            case Accepted() | Staged() | PrefillAdvanced():
                return None
            case PromptScored(tokens=tokens):
                return ChoiceEvent(choice.index, prompt=tokens)
            case TokensDecoded(tokens=tokens):
                return self._news(choice, tokens, None)
            case Finished(tokens=tokens, reason=reason, usage=usage):
                self._open.discard(reply.request_id)
                choice.usage = usage
                return self._news(choice, tokens, reason)
            case Cancelled() | Failed() | Rejected():
                self._open.discard(reply.request_id)
                if not choice.text.stopped:
                    raise self._failed(reply)
                choice.usage = reply.usage if isinstance(reply, Cancelled) else None
                return None
            case _:
                assert_never(reply)

    def _failed(self, word: Cancelled | Failed | Rejected) -> ApiError:
        error = of_last_word(word, timeout_s=self._timeout_s)
        self._choices[word.request_id].times.failure = error.code
        if isinstance(word, Failed) and not word.refused:
            log.error("%s failed: %s", word.request_id, word.error)
        return error

    def _news(
        self, choice: _Choice, tokens: Sequence[TokenOutput], finish_reason: FinishReason | None
    ) -> ChoiceEvent | None:
        already_stopped = choice.text.stopped
        if already_stopped:
            return None  # What the engine produced before it heard of the stop.
        pieces = [choice.text.feed(tokens)]
        if finish_reason:
            pieces.append(choice.text.finish())
        if choice.text.stopped:
            self._desk.cancel(choice.request_id, CancelCause.STOP_STRING)
        parts = joined(part for piece in pieces for part in piece.parts)
        scored = tuple(token for piece in pieces for token in piece.scored)
        ending = choice.ending(finish_reason)
        return ChoiceEvent(choice.index, parts, scored, ending) if parts or scored or ending else None
