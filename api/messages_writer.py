"""Writes a reply the way Anthropic's API does: one message, or the sequence of events that builds it.

`usage.input_tokens` is the whole prompt, from the first event on, and what count_tokens says. Anthropic's three figures
for input add up to the prompt, and clients do add them; so the two for caches are 0. What a cache saved is in the log
and in /v1/status.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from api import sse
from api.answer import Json
from api.choices import repetition_detected
from api.errors import ApiError
from api.exchange import ChoiceEvent, Cost, Ending
from api.message_content import BlockStream, blocks_of


@dataclass(slots=True, kw_only=True)
class MessagesWriter:
    """See Writer. A message has one choice."""

    id: str
    model: str
    prompt_tokens: int
    shows_thinking: bool
    """Whether the client wants to read what the model thinks."""
    _content: BlockStream = field(init=False)
    _ending: Ending | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._content = BlockStream(shows_thinking=self.shows_thinking)

    def whole(self, choices: Sequence[ChoiceEvent], cost: Cost) -> Json:
        """See Writer."""
        (choice,) = choices
        content = blocks_of(choice.parts, shows_thinking=self.shows_thinking)
        called = any(block["type"] == "tool_use" for block in content)
        return self._message(content, _stop(choice.ending, called=called), cost)

    def opening(self) -> Iterator[bytes]:
        """See Writer."""
        nothing = Cost(self.prompt_tokens, 0, 0, 0, longest=self.prompt_tokens)
        yield _frame({"type": "message_start", "message": self._message([], _stop(None), nothing)})
        yield self.heartbeat()

    def news(self, event: ChoiceEvent) -> Iterator[bytes]:
        """See Writer."""
        yield from map(_frame, self._content.take(event.parts))
        self._ending = event.ending

    def closing(self, cost: Cost) -> Iterator[bytes]:
        """See Writer."""
        yield from map(_frame, self._content.end())
        delta = _stop(self._ending, called=self._content.called)
        yield _frame({"type": "message_delta", "delta": delta, "usage": _usage(cost)})
        yield _frame({"type": "message_stop"})

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """See Writer."""
        yield _frame(error.anthropic_envelope())

    def heartbeat(self) -> bytes:
        """See Writer."""
        return _frame({"type": "ping"})

    def _message(self, content: list[Json], stop: Json, cost: Cost) -> Json:
        message: Json = {"id": self.id, "type": "message", "role": "assistant", "model": self.model}
        return message | {"content": content} | stop | {"usage": _usage(cost)}


def _stop(ending: Ending | None, *, called: bool = False) -> Json:
    """Why a message ended; a call that is complete wants its result, even if one behind it is malformed."""
    reason = None
    if ending and ending.stop_string is not None:
        reason = "stop_sequence"
    elif ending and ending.reason == "length":
        reason = "max_tokens"
    elif ending:
        reason = "tool_use" if called else "end_turn"
    stop: Json = {"stop_reason": reason, "stop_sequence": ending.stop_string if ending else None}
    return stop | repetition_detected(ending)


def _usage(cost: Cost) -> Json:
    return {
        "input_tokens": cost.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": cost.completion_tokens,
        "output_tokens_details": {"thinking_tokens": cost.thinking_tokens},
    }


def _frame(event: Json) -> bytes:
    return sse.event(str(event["type"]), event)
