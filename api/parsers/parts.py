"""What an assistant's turn is made of, in the order it comes: thinking, content, and calls of tools."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby


@dataclass(frozen=True, slots=True)
class Thinking:
    """More of the reasoning that comes before the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """More of the answer itself."""

    text: str


@dataclass(frozen=True, slots=True)
class CallOpened:
    """The model calls a tool. What follows up to CallClosed are its arguments."""

    index: int
    """Counts the calls of one reply, from 0."""
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of the JSON text of a call's arguments."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallClosed:
    """The arguments of a call are complete, and are one JSON object. A call without it was cut off or malformed."""

    index: int


Part = Thinking | Content | CallOpened | CallArguments | CallClosed


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    """A JSON schema of an object; an empty one takes any object."""


def joined(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The same parts, with neighbours of one kind in one."""
    found: list[Part] = []
    for (kind, index), alike in groupby(parts, lambda part: (type(part), getattr(part, "index", None))):
        if kind is CallOpened or kind is CallClosed:
            found += alike
        else:
            text = "".join(part.text for part in alike if isinstance(part, Thinking | Content | CallArguments))
            found.append(_of_kind(kind, index, text))
    return tuple(found)


def _of_kind(kind: type[Part], index: int | None, text: str) -> Part:
    if index is not None:
        return CallArguments(index, text)
    return Thinking(text) if kind is Thinking else Content(text)
