"""What goes into a chat template, and what comes out: plain values, as OpenAI's API and chat templates write them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

ChatMessage = dict[str, object]
"""One message as chat templates read it: role, content, and what else the role allows."""

ToolObject = Mapping[str, object]
"""One tool as OpenAI's API and chat templates write it: {"type": "function", "function": {...}}."""

TAIL = 200
"""Characters of a rendered prompt's end that go along with its ids."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that a client says to a chat template."""

    messages: Sequence[ChatMessage]
    tools: Sequence[ToolObject] = ()
    template_kwargs: Mapping[str, object] = field(default_factory=dict)

    def strings(self) -> list[str]:
        """Every string in it, names of fields included."""
        return list(_strings((self.messages, self.tools, self.template_kwargs)))


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation in the model's own format, ready for the assistant's turn."""

    token_ids: tuple[int, ...]
    tail: str
    """The last characters of the rendered text: they tell whether the template opened the thinking."""


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for name, item in value.items():
                yield str(name)
                yield from _strings(item)
        case list() | tuple():
            for item in value:
                yield from _strings(item)
