"""The output of a response as it grows: its items, and the events that tell a stream of them.

Items and events are those of OpenAI's Responses API reference.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never

from api.answer import Json
from api.parsers.parts import CallArguments, CallClosed, CallOpened, Content, Part, Thinking

Kind = Literal["reasoning", "message", "function_call"]
Status = Literal["completed", "incomplete"]

_TEXT_EVENTS = {"reasoning": "response.reasoning_text", "message": "response.output_text"}
_ID_PREFIXES: dict[Kind, str] = {"reasoning": "rs", "message": "msg", "function_call": "fc"}


@dataclass(slots=True)
class OpenItem:
    """The item that is being written."""

    kind: Kind
    id: str
    index: int
    """Its place in the output."""
    call: CallOpened | None = None
    namespace: str | None = None
    text: list[str] = field(default_factory=list)
    logprobs: list[object] = field(default_factory=list)
    closed: bool = True
    """Whether nothing is missing; of a call that is not known before its end."""

    @property
    def place(self) -> Json:
        """How events name it."""
        return {"item_id": self.id, "output_index": self.index}

    def content(self) -> Json:
        """The one part that an item of text has."""
        text = "".join(self.text)
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self.logprobs}

    def show(self, status: str) -> Json:
        """The item as it stands; an item that only begins has no content."""
        shown: Json = {"id": self.id, "type": self.kind, "status": status}
        content = [] if status == "in_progress" else [self.content()]
        match self.kind:
            case "reasoning":
                return shown | {"summary": [], "content": content}
            case "message":
                return shown | {"role": "assistant", "content": content}
            case "function_call":
                return shown | self._called()
            case _:
                assert_never(self.kind)

    def _called(self) -> Json:
        call = self.call
        called: Json = {"call_id": call.id, "name": call.name, "arguments": "".join(self.text)} if call else {}
        return called | ({"namespace": self.namespace} if self.namespace else {})


class Output:
    """Takes the parts of a reply, gives the events that tell of them, and keeps the finished items."""

    def __init__(self, response_id: str, namespaces: Mapping[str, str]) -> None:
        """`namespaces` are those of the functions that were offered in one."""
        self.items: list[Json] = []
        self._suffix = response_id.partition("_")[2]
        self._namespaces = namespaces
        self._item: OpenItem | None = None

    def take(self, parts: Sequence[Part], logprobs: Sequence[object] = ()) -> Iterator[Json]:
        """The events of more parts; `logprobs` go with the first of them that is content."""
        for part in parts:
            match part:
                case Thinking(text):
                    yield from self._text("reasoning", text, ())
                case Content(text):
                    yield from self._text("message", text, logprobs)
                    logprobs = ()
                case CallOpened():
                    yield from self._open("function_call", part)
                case CallArguments(text=text):
                    yield from self._arguments(text)
                case CallClosed():
                    if self._item:
                        self._item.closed = True
                    yield from self.close("completed")
                case _:
                    assert_never(part)

    def close(self, status: Status) -> Iterator[Json]:
        """End the item that is being written, if there is one; a call that is not whole is incomplete."""
        item, self._item = self._item, None
        if item is None:
            return
        yield from _ends(item)
        shown = item.show(status if item.closed else "incomplete")
        self.items.append(shown)
        yield {"type": "response.output_item.done", "output_index": item.index, "item": shown}

    def _open(self, kind: Kind, call: CallOpened | None = None) -> Iterator[Json]:
        yield from self.close("completed")
        index = len(self.items)
        item = OpenItem(kind, f"{_ID_PREFIXES[kind]}_{self._suffix}{index:02x}", index, call, closed=call is None)
        item.namespace = self._namespaces.get(call.name) if call else None
        self._item = item
        yield {"type": "response.output_item.added", "output_index": index, "item": item.show("in_progress")}
        if call is None:
            yield {"type": "response.content_part.added", **item.place, "content_index": 0, "part": item.content()}

    def _text(self, kind: Literal["reasoning", "message"], text: str, logprobs: Sequence[object]) -> Iterator[Json]:
        if self._item is None or self._item.kind != kind:
            yield from self._open(kind)
        item = self._item
        assert item is not None  # noqa: S101 - _open has just made it.
        item.text.append(text)
        event: Json = {"type": f"{_TEXT_EVENTS[kind]}.delta", **item.place, "content_index": 0, "delta": text}
        if kind == "message":
            item.logprobs += logprobs
            event["logprobs"] = list(logprobs)
        yield event

    def _arguments(self, text: str) -> Iterator[Json]:
        if self._item:
            self._item.text.append(text)
            yield {"type": "response.function_call_arguments.delta", **self._item.place, "delta": text}


def _ends(item: OpenItem) -> Iterator[Json]:
    """What is said of an item's content when it is complete."""
    text = "".join(item.text)
    if item.call:
        called = {"name": item.call.name, "arguments": text}
        yield {"type": "response.function_call_arguments.done", **item.place, **called}
        return
    done: Json = {"text": text, "logprobs": item.logprobs} if item.kind == "message" else {"text": text}
    yield {"type": f"{_TEXT_EVENTS[item.kind]}.done", **item.place, "content_index": 0, **done}
    yield {"type": "response.content_part.done", **item.place, "content_index": 0, "part": item.content()}
