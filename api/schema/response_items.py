"""The items of POST /v1/responses: what was said, thought, called and answered, and the chat messages they make."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from annotated_types import MaxLen
from pydantic import BeforeValidator, Discriminator, Field, Tag

from api.schema.base import Body, OrAlso, at_most
from api.schema.chat import Message, refused_part
from api.schema.rules import an_object, either
from api.schema.tools import Arguments, CalledFunction, ToolCall


def _joined(content: object) -> object:
    """Content may be a string or a list of parts; the parts' texts together are the content."""
    if not isinstance(content, list):
        return content
    return "".join(_text(part, at=str(at)) for at, part in enumerate(content))


def _text(part: object, *, at: str) -> str:
    match part:
        case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
            return text
        case {"type": "refusal", "refusal": str(text)}:
            return text
        case _:
            raise refused_part(part, at=at)


_PARTS = either(
    an_object(type={"enum": ["input_text", "output_text", "text"]}, text={"type": "string"}),
    an_object(type={"const": "refusal"}, refusal={"type": "string"}),
)
PARTS = OrAlso({"type": "array", "maxItems": 10_000, "items": _PARTS})
Text = Annotated[str, BeforeValidator(_joined), PARTS, at_most(10_000)]


class Said(Body):
    """A message."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class Called(Body):
    """A call that the assistant made."""

    type: Literal["function_call"]
    call_id: str
    name: Annotated[str, MaxLen(1024)]
    arguments: Arguments
    namespace: str | None = None
    id: str | None = None
    status: str | None = None


class Answered(Body):
    """What came of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: Text
    id: str | None = None
    status: str | None = None
    name: str | None = None


class ThoughtPart(Body):
    """Some thinking."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


class Thought(Body):
    """What the assistant thought."""

    type: Literal["reasoning"]
    content: Annotated[list[ThoughtPart], at_most(1_000)] = Field(default_factory=list)
    summary: Annotated[list[ThoughtPart], at_most(1_000)] = Field(default_factory=list)
    id: str | None = None
    encrypted_content: str | None = None
    status: str | None = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content or self.summary)


def _kind(item: object) -> str:
    """The type of an item; without one it is a message."""
    given = item.get("type") if isinstance(item, dict) else getattr(item, "type", "")
    return "message" if given is None else given if isinstance(given, str) else ""


Item = Annotated[
    Annotated[Said, Tag("message")]
    | Annotated[Called, Tag("function_call")]
    | Annotated[Answered, Tag("function_call_output")]
    | Annotated[Thought, Tag("reasoning")],
    Discriminator(
        _kind,
        custom_error_type="wrong",
        custom_error_message="must be a message, a function_call, a function_call_output or a reasoning item",
    ),
]


def messages_of(items: Sequence[Item]) -> Iterator[Message]:
    """As a chat has them: what the assistant thought, said and called without a break is one message."""
    turn: list[Said | Called | Thought] = []
    for item in items:
        if isinstance(item, Answered) or (isinstance(item, Said) and item.role != "assistant"):
            yield from _assistant(turn)
            turn = []
            yield _other(item)
        else:
            turn.append(item)
    yield from _assistant(turn)


def _other(item: Answered | Said) -> Message:
    if isinstance(item, Answered):
        return Message(role="tool", tool_call_id=item.call_id, content=item.output)
    return Message(role=item.role, content=item.content)


def _assistant(turn: Sequence[Said | Called | Thought]) -> Iterator[Message]:
    if turn:
        yield Message(
            role="assistant",
            content="\n\n".join(item.content for item in turn if isinstance(item, Said)),
            reasoning_content="\n\n".join(item.text for item in turn if isinstance(item, Thought)) or None,
            tool_calls=[_call(item) for item in turn if isinstance(item, Called)],
        )


def _call(item: Called) -> ToolCall:
    function = CalledFunction.model_construct(name=item.name, arguments=item.arguments)
    return ToolCall(id=item.call_id, function=function)
