"""Responses that a client may go on from: the newest, in memory, within a bound."""

from collections import OrderedDict
from dataclasses import dataclass

from api.answer import Json
from api.schema.chat import Message

MOST_RESPONSES = 1_000
MOST_CHARACTERS = 64 << 20
"""Of all conversations together; each counts in full, though they share what they have in common."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One response and all that was said up to its end."""

    response: Json
    messages: tuple[Message, ...]
    """The conversation, without instructions."""

    @property
    def characters(self) -> int:
        return sum(len(message.content or "") + 100 for message in self.messages)


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
