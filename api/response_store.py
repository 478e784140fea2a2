"""Responses that a client may go on from: the newest, in memory, within a bound."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from api.schema.chat import Message

MOST_RESPONSES = 1_000
MOST_CHARACTERS = 64 << 20
"""Of all responses and conversations together; each counts in full, though they share what they have in common."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One response and all that was said up to its end."""

    body: bytes
    """The response as it was sent, as JSON: it repeats instructions and tools, which may be long."""
    messages: Sequence[Message]
    """The conversation, without instructions."""
    characters: int = field(init=False)
    """How much there is to keep: of text, of JSON, and a little for each message."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "characters", len(self.body) + sum(map(_length, self.messages)))


def _length(message: Message) -> int:
    calls = sum(
        100 + len(call.function.name) + len(orjson.dumps(call.function.arguments)) for call in message.tool_calls
    )
    return 100 + len(message.content or "") + len(message.reasoning_content or "") + calls


class ResponseStore:
    """Forgets what was not used for longest."""

    def __init__(self, most: int = MOST_RESPONSES, most_characters: int = MOST_CHARACTERS) -> None:
        self._most, self._most_characters = most, most_characters
        self._stored: OrderedDict[str, StoredResponse] = OrderedDict()
        self._characters = 0

    def __len__(self) -> int:
        return len(self._stored)

    def get(self, response_id: str) -> StoredResponse | None:
        if found := self._stored.get(response_id):
            self._stored.move_to_end(response_id)
        return found

    def put(self, response_id: str, stored: StoredResponse) -> None:
        """Keep it, unless it alone is more than may be kept."""
        if stored.characters > self._most_characters:
            return
        self._stored[response_id] = stored
        self._characters += stored.characters
        while len(self._stored) > self._most or self._characters > self._most_characters:
            _, oldest = self._stored.popitem(last=False)
            self._characters -= oldest.characters

    def drop(self, response_id: str) -> bool:
        """Forget it; say whether it was there."""
        found = self._stored.pop(response_id, None)
        self._characters -= found.characters if found else 0
        return found is not None
