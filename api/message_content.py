"""The content of a message of Anthropic's API: its blocks, or the events that build them one after the other.

Blocks and events are those of docs.anthropic.com/en/api/messages and /en/docs/build-with-claude/streaming. Text that is
nothing but white space is no block, unless there is nothing else: Anthropic's API refuses such blocks in a history.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never

import orjson

from api.answer import Json
from api.parsers.json_scanner import JsonScanner
from api.parsers.parts import CallArguments, CallClosed, CallOpened, Content, Part, Thinking
from api.schema.base import too_deep

Kind = Literal["text", "thinking", "tool_use"]


def blocks_of(parts: Sequence[Part], *, shows_thinking: bool) -> list[Json]:
    """The blocks of a whole reply; a call that is cut off or malformed is text, because it has no input."""
    closed = {part.index for part in parts if isinstance(part, CallClosed)}
    found: list[Json] = []
    for part in parts:
        match part:
            case Thinking(text):
                found.append(_thinking(text if shows_thinking else ""))
            case Content(text):
                found.append(_text(text))
            case CallOpened(index):
                arguments = "".join(p.text for p in parts if isinstance(p, CallArguments) and p.index == index)
                given = _read(arguments) if index in closed else None
                found.append(_text(_written(part, arguments)) if given is None else _tool_use(part, given))
            case CallArguments() | CallClosed():
                pass
            case _:
                assert_never(part)
    return [block for block in found if len(found) == 1 or str(block.get("text", "-")).strip()]


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _thinking(text: str) -> Json:
    """Nothing is signed: whatever comes back as thinking is shown to the model."""
    return {"type": "thinking", "thinking": text, "signature": ""}


def _tool_use(call: CallOpened, given: object) -> Json:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": given}


def _read(arguments: str) -> object:
    """The object; None if it cannot be sent, being nested without end or holding half of a surrogate pair."""
    try:
        given: object = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return None
    return None if too_deep(given) else given


def _written(call: CallOpened, arguments: str) -> str:
    """A call that is none, as text."""
    return f"{call.name} {arguments}"


@dataclass(slots=True)
class _OpenCall:
    """A call that is being told."""

    opened: CallOpened
    arguments: str = ""
    broken: bool = False
    """Whether the arguments are not even the beginning of a JSON object."""
    _scanner: JsonScanner = field(default_factory=JsonScanner)

    def take(self, text: str) -> str:
        """More of the arguments; returns what of it may be told as input."""
        begins = not self.arguments
        self.arguments += text
        if self.broken or (begins and not text.startswith("{")):
            self.broken = True
            return ""
        end = self._scanner.scan(text, 0)
        self.broken = end < len(text)
        return text[:end]


class BlockStream:
    """Takes the parts of a reply as they come, and gives the events that tell of them.

    Clients parse a tool's input as it comes, so nothing is told of it from the point on where it is no JSON any more.
    Such a call is told again as a whole, as text. A call that is only cut off ends where it was cut.
    """

    def __init__(self, *, shows_thinking: bool) -> None:
        self._shows_thinking = shows_thinking
        self._index = -1
        self._kind: Kind | None = None
        """What the open block is; None if there is none."""
        self._call: _OpenCall | None = None
        self._blank = ""
        """White space that may be nothing, or the beginning of text."""
        self.called = False
        """Whether a call was complete."""

    def take(self, parts: Sequence[Part]) -> Iterator[Json]:
        """The events of more parts."""
        for part in parts:
            match part:
                case Thinking(text):
                    yield from self._think(text)
                case Content(text):
                    yield from self._say(text)
                case CallOpened():
                    yield from self._open("tool_use", _tool_use(part, {}))
                    self._call = _OpenCall(part)
                    yield self._delta("input_json_delta", partial_json="")
                case CallArguments(text=text):
                    if self._call and (sound := self._call.take(text)):
                        yield self._delta("input_json_delta", partial_json=sound)
                case CallClosed():
                    self.called = True
                    yield from self._close()
                case _:
                    assert_never(part)

    def end(self) -> Iterator[Json]:
        """The events that end the last block."""
        yield from self._close()
        if self._index < 0 and self._blank:
            yield from self._whole_text(self._blank)

    def _think(self, text: str) -> Iterator[Json]:
        if self._kind != "thinking":
            yield from self._open("thinking", _thinking(""))
        if self._shows_thinking:
            yield self._delta("thinking_delta", thinking=text)

    def _say(self, text: str) -> Iterator[Json]:
        if self._kind != "text":
            yield from self._close()
            self._blank += text
            if not self._blank.strip():
                return
            text = self._blank
            yield from self._open("text", _text(""))
        yield self._delta("text_delta", text=text)

    def _whole_text(self, text: str) -> Iterator[Json]:
        yield from self._open("text", _text(""))
        yield self._delta("text_delta", text=text)
        yield from self._close()

    def _open(self, kind: Kind, block: Json) -> Iterator[Json]:
        yield from self._close()
        self._kind, self._blank = kind, ""
        self._index += 1
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _close(self) -> Iterator[Json]:
        if self._kind == "thinking":
            yield self._delta("signature_delta", signature="")
        if self._kind:
            yield {"type": "content_block_stop", "index": self._index}
        call, self._kind, self._call = self._call, None, None
        if call and call.broken:
            yield from self._whole_text(_written(call.opened, call.arguments))

    def _delta(self, kind: str, **what: str) -> Json:
        return {"type": "content_block_delta", "index": self._index, "delta": {"type": kind, **what}}
