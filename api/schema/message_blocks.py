"""The blocks that messages of Anthropic's API are made of (docs.anthropic.com/en/api/messages).

`cache_control` may stand anywhere: prefixes are cached without being marked.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from annotated_types import MaxLen, MinLen
from pydantic import BeforeValidator, Field

from api.schema.base import Body, Off, OrAlso, at_most, wrong

PARAGRAPHS = "\n\n"
"""What stands between texts that become one."""


def paragraphs(texts: Iterable[str]) -> str:
    """The texts that are not empty, as one."""
    return PARAGRAPHS.join(text for text in texts if text)


def _of_kinds(*kinds: str) -> BeforeValidator:
    """Say clearly what cannot be taken, before the union of all blocks lists its tags."""

    def check(block: object) -> object:
        match block:
            case {"type": "image"}:
                raise wrong("the model is text-only, it cannot take images")
            case {"type": str(kind)} if kind not in kinds:
                raise wrong(f"blocks of type {kind[:40]!r} are not supported here")
            case {"type": str()}:
                return block
            case _:
                raise wrong("must be an object with a type")

    return BeforeValidator(check)


def _as_blocks(content: object) -> object:
    """A string stands for one block of text; an empty one for none."""
    if not isinstance(content, str):
        return content
    return [{"type": "text", "text": content}] if content else []


def _not_empty(text: object) -> object:
    if text == "":
        raise wrong("text content blocks must be non-empty")
    return text


MOST_BLOCKS = at_most(10_000)
AS_BLOCKS = BeforeValidator(_as_blocks)
ONE_TEXT = OrAlso({"type": "string"})


class Citations(Body):
    """Whether to cite a source."""

    enabled: Off = False
    """Citing is not done here."""


class TextBlock(Body):
    """Some text."""

    type: Literal["text"]
    text: Annotated[str, MinLen(1), BeforeValidator(_not_empty)]
    citations: list[object] | None = None
    """Sent back by clients that keep whole replies; the model is not told of them."""
    cache_control: object = None

    @property
    def as_text(self) -> str:
        return self.text


TextBlocks = Annotated[list[Annotated[TextBlock, _of_kinds("text")]], MOST_BLOCKS, AS_BLOCKS, ONE_TEXT]


class PlainSource(Body):
    """A document that is a text."""

    type: Literal["text"]
    media_type: Literal["text/plain"]
    data: str

    @property
    def as_text(self) -> str:
        return self.data


class BlocksSource(Body):
    """A document in blocks of text."""

    type: Literal["content"]
    content: TextBlocks

    @property
    def as_text(self) -> str:
        return paragraphs(block.text for block in self.content)


def _texts_only(source: object) -> object:
    match source:
        case {"type": str(kind)} if kind not in ("text", "content"):
            raise wrong(f"documents of source type {kind[:40]!r} are not supported, only those of text are")
        case {"type": str()}:
            return source
        case _:
            raise wrong("must be an object with a type")


class DocumentBlock(Body):
    """A document: the model reads its title, its context and its text."""

    type: Literal["document"]
    source: Annotated[Annotated[PlainSource | BlocksSource, Field(discriminator="type")], BeforeValidator(_texts_only)]
    title: str | None = None
    context: str | None = None
    citations: Citations | None = None
    cache_control: object = None

    @property
    def as_text(self) -> str:
        return paragraphs((self.title or "", self.context or "", self.source.as_text))


class SearchResultBlock(Body):
    """What a search of the client's found: the model reads where, the title and the text."""

    type: Literal["search_result"]
    source: str
    title: str
    content: TextBlocks
    citations: Citations | None = None
    cache_control: object = None

    @property
    def as_text(self) -> str:
        return paragraphs((self.source, self.title, *(block.text for block in self.content)))


class ThinkingBlock(Body):
    """What the assistant thought; whoever signed it, it is shown to the model."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Body):
    """Thinking that only Anthropic can read: the model is not told of it."""

    type: Literal["redacted_thinking"]
    data: str


class DirectCaller(Body):
    """The model itself called."""

    type: Literal["direct"]


class ToolUseBlock(Body):
    """A call that the assistant made."""

    type: Literal["tool_use"]
    id: str
    name: Annotated[str, MaxLen(1024)]
    input: dict[str, object]
    caller: DirectCaller | None = None
    cache_control: object = None


ResultPart = Annotated[TextBlock | DocumentBlock | SearchResultBlock, Field(discriminator="type")]


class ToolResultBlock(Body):
    """What came of a call."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: Annotated[
        list[Annotated[ResultPart, _of_kinds("text", "document", "search_result")]], MOST_BLOCKS, AS_BLOCKS, ONE_TEXT
    ] = Field(default_factory=list)
    is_error: bool = False
    cache_control: object = None

    @property
    def as_text(self) -> str:
        """Chat templates have no other place for the news that it is an error."""
        text = paragraphs(part.as_text for part in self.content)
        if not self.is_error:
            return text
        return f"Error: {text}" if text else "Error"


TextLike = TextBlock | DocumentBlock | SearchResultBlock
Block = TextLike | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock
KINDS = {
    "user": ("text", "document", "search_result", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text",),
}
"""What each may say."""

Blocks = Annotated[
    list[Annotated[Annotated[Block, Field(discriminator="type")], _of_kinds(*KINDS["user"], *KINDS["assistant"])]],
    MOST_BLOCKS,
    AS_BLOCKS,
    ONE_TEXT,
]
