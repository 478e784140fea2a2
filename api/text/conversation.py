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
        """Every string in it, names of fields included, in no order."""
        return [value for value in self._values() if isinstance(value, str)]

    def is_long(self, least: int) -> bool:
        """Whether it has `least` characters or values; however much more it has, no more are counted."""
        for value in self._values():
            least -= len(value) if isinstance(value, str) else 1
            if least <= 0:
                return True
        return False

    def _values(self) -> Iterator[object]:
        """All that is in it and holds nothing else, in no order."""
        todo: list[object] = [self.messages, self.tools, self.template_kwargs]
        while todo:
            match todo.pop():
                case Mapping() as fields:
                    todo += [*fields.keys(), *fields.values()]
                case list() | tuple() as items:
                    todo += items
                case value:
                    yield value


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation in the model's own format, ready for the assistant's turn."""

    token_ids: tuple[int, ...]
    tail: str
    """The last characters of the rendered text: they tell whether the template opened the thinking."""
