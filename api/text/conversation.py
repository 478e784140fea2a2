"""What goes into a chat template, and what comes out: plain values, as OpenAI's API and chat templates write them."""

from collections.abc import Mapping, Sequence
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
        """Every string in it, names of fields included, in no order."""
        found: list[str] = []
        todo: list[object] = [self.messages, self.tools, self.template_kwargs]
        while todo:
            match todo.pop():
                case str(text):
                    found.append(text)
                case Mapping() as fields:
                    todo += [*fields.keys(), *fields.values()]
                case list() | tuple() as items:
                    todo += items
        return found


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation in the model's own format, ready for the assistant's turn."""

    token_ids: tuple[int, ...]
    tail: str
    """The last characters of the rendered text: they tell whether the template opened the thinking."""
