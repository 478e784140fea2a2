"""Marks what clients say, so that in a rendered prompt no text of theirs passes for a control token.

A mark is one character that no string of the conversation holds. It stands behind every character of a client's
text with which a control token could begin, and wherever such text could go on with what the template began
(a template that writes '<' + name + '>' must not be given the rest of a token as a name). So a control token in
the rendered text has a mark inside if any of it came from a client. Marks are taken out again before encoding
(MarkedText), and only where the tokeniser does find a token across one, it is told not to (api/text/encoder.py).

Inside the content of the assistant the tags around its thinking and its calls stay whole: templates look for them.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from jinja2 import Environment

from api.errors import bad_request
from api.text.conversation import ChatMessage, Conversation

MARKS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))
"""Unicode's noncharacters: never assigned, never whitespace, and in no text but a text made to hold them."""

_VALIDATED = re.compile("[a-z]+")
"""Values of `role` and `type`: words that templates compare, and write into control tokens of their own."""


_NAMES = frozenset(("type", "text", "id", "index", "function", "name", "description", "parameters", "arguments"))
"""Fields of OpenAI's API, inside of messages and tools: templates ask for them. None is the rest of a token."""


class Shield:
    """Knows where control tokens could begin in a client's text."""

    def __init__(self, special: Collection[str], tags: Collection[str], template: str) -> None:
        """`special` and `tags` are the control tokens; the assistant may write those in `tags`."""
        tokens = [token.strip() for token in (*special, *tags)]
        # Of a token that begins with a letter it is only where the whole of it is meant: "sop" is a token of
        # ChatGLM's, and a mark behind every s would change what templates see in any word.
        self._words = tuple(token for token in tokens if token[0].isalnum())
        self._characters = tuple({token[0] for token in tokens} - {word[0] for word in self._words})
        self._tags = tuple(tags)
        self._rests = _continuations(tokens, _literals(template))
        self._rest_beginnings = {rest[:end] for rest in self._rests for end in range(1, len(rest))}

    def mark(self, conversation: Conversation) -> tuple[Conversation, str]:
        """The conversation with marks in it, and the mark.

        Raises:
            ApiError: 400; the strings hold all noncharacters that could be the mark.
        """
        text = "\0".join(conversation.strings())
        mark = _unused_mark(text)
        if not self._rests and not any(beginning in text for beginning in (*self._characters, *self._words)):
            return conversation, mark
        marker = _Marker(self, mark)
        messages = [marker.message(message) for message in conversation.messages]
        tools = [marker.fields(tool) for tool in conversation.tools]
        return Conversation(messages, tools, marker.fields(conversation.template_kwargs)), mark

    def marked(self, text: str, mark: str, *, own_words: bool) -> str:
        """One string with marks in it; `own_words` are the assistant's."""
        marked = self._behind_beginnings(text, mark)
        if own_words and marked != text:
            for tag in self._tags:
                marked = marked.replace(self._behind_beginnings(tag, mark), tag)
        start = text.lstrip()
        if start in self._rest_beginnings or start.startswith(self._rests):
            indent = len(text) - len(start)
            marked = marked[:indent] + mark + marked[indent:]
        return marked

    def _behind_beginnings(self, text: str, mark: str) -> str:
        for character in self._characters:
            text = text.replace(character, character + mark)
        for word in self._words:
            text = text.replace(word, word[0] + mark + word[1:])
        return text


@dataclass(frozen=True, slots=True)
class _Marker:
    """One conversation's walk through its values."""

    shield: Shield
    mark: str

    def message(self, message: ChatMessage) -> dict[str, object]:
        own = message.get("role") == "assistant"
        return {name: self._value(name, item, own and name == "content") for name, item in message.items()}

    def fields(self, fields: Mapping[str, object]) -> dict[str, object]:
        return {name if name in _NAMES else self._text(name): self._value(name, item) for name, item in fields.items()}

    def _value(self, name: str, value: object, own_words: bool = False) -> object:
        match value:
            case str() if name in ("role", "type") and _VALIDATED.fullmatch(value):
                return value
            case str():
                return self._text(value, own_words)
            case Mapping():
                return self.fields(value)
            case list() | tuple():
                return [self._value("", item, own_words) for item in value]
            case _:
                return value

    def _text(self, text: str, own_words: bool = False) -> str:
        return self.shield.marked(text, self.mark, own_words=own_words)


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A rendered prompt without its marks."""

    rendered: str
    """With the marks."""
    mark: str

    @property
    def text(self) -> str:
        return "".join(self._pieces())

    def marks(self) -> list[int]:
        """Before which characters of `text` there was a mark, in order."""
        return list(accumulate(len(piece) for piece in self._pieces()))[:-1]

    def _pieces(self) -> list[str]:
        escape = f"u{ord(self.mark):04x}"
        if escape in self.rendered:
            # A template may write a string as tojson or as Python's repr does.
            return re.split(rf"{self.mark}|\\+{escape}", self.rendered)
        return self.rendered.split(self.mark)


def _unused_mark(text: str) -> str:
    for mark in MARKS:
        if mark not in text and f"u{ord(mark):04x}" not in text:
            return mark
    raise bad_request("The messages hold every Unicode noncharacter from U+FDD0 to U+FDEF.", param="messages")


def _literals(template: str) -> list[str]:
    """The texts that a chat template itself writes, or may."""
    tokens = Environment(autoescape=True).lex(template)
    return [text[1:-1] if kind == "string" else text for _, kind, text in tokens if kind in ("data", "string")]


def _continuations(tokens: Iterable[str], literals: Iterable[str]) -> tuple[str, ...]:
    """The rests of control tokens that a template's own text ends within."""
    rests: dict[str, set[str]] = {}
    for token in tokens:
        for end in range(1, len(token)):
            rests.setdefault(token[:end], set()).add(token[end:])
    longest = max(map(len, rests), default=0)
    ends = {literal[-length:] for literal in literals for length in range(1, min(longest, len(literal)) + 1)}
    return tuple(sorted({rest for end in ends for rest in rests.get(end, ())}))
