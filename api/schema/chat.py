"""POST /v1/chat/completions: what a client may send, as OpenAI's API reference has it."""

from typing import Annotated, ClassVar, Literal

import orjson
from annotated_types import Ge, Le, MinLen
from pydantic import BeforeValidator, Field, model_validator

from api.schema.base import Body, at_most, wrong
from api.schema.generation import GenerationBody

IMAGE_PARTS = frozenset({"image", "image_url", "input_image"})


def _joined(content: object) -> object:
    """Content may be a string or a list of parts; the parts' texts together are the content."""
    if not isinstance(content, list):
        return content
    if not content:
        raise wrong("must hold at least one part")
    return "".join(_part_text(part, at=str(index)) for index, part in enumerate(content))


def _part_text(part: object, *, at: str) -> str:
    match part:
        case {"type": "text", "text": str(text), **rest} if not rest:
            return text
        case {"type": "text"}:
            raise wrong('must be {"type": "text", "text": a string}', at=at)
        case {"type": str(kind)} if kind in IMAGE_PARTS:
            raise wrong("the model is text-only, it cannot take images", at=at)
        case {"type": str(kind)}:
            raise wrong(f"parts of type {kind[:40]!r} are not supported", at=at)
        case _:
            raise wrong("must be an object with a type", at=at)


def _arguments(text: object) -> object:
    """Arguments travel as JSON text, and templates want the object; models write nothing for no arguments."""
    try:
        if isinstance(text, str):
            return orjson.loads(text or "{}")
    except orjson.JSONDecodeError as error:
        raise wrong(f"must be a JSON object in a string: {error}") from None
    raise wrong("must be a JSON object in a string")


class CalledFunction(Body):
    """What the assistant called."""

    name: str
    arguments: Annotated[dict[str, object], BeforeValidator(_arguments)]


class ToolCall(Body):
    """A call that the assistant made earlier in the conversation."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Message(Body):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, BeforeValidator(_joined), at_most(10_000)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], at_most(1_000)] = Field(default_factory=list)
    tool_call_id: str | None = None

    not_yet: ClassVar[frozenset[str]] = frozenset({"audio", "function_call", "refusal", "reasoning"})

    @model_validator(mode="after")
    def _fits_its_role(self) -> "Message":
        if self.content is None and not self.tool_calls:
            raise wrong("is missing", at="content")
        if self.tool_calls and self.role != "assistant":
            raise wrong("is for messages of the assistant", at="tool_calls")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise wrong("belongs to messages of a tool, which must have it", at="tool_call_id")
        return self

    def for_template(self) -> dict[str, object]:
        """As chat templates read it: `developer` is the newer name of `system`."""
        fields = self.model_dump(exclude_defaults=True)
        role = "system" if self.role == "developer" else self.role
        return {**fields, "role": role, "content": self.content or ""}


class ResponseFormat(Body):
    """What the answer must look like."""

    type: str

    not_yet: ClassVar[frozenset[str]] = frozenset({"json_schema"})

    @model_validator(mode="after")
    def _text_only(self) -> "ResponseFormat":
        if self.type != "text":
            raise wrong(f"{self.type[:40]!r} is not supported yet, only 'text' is", at="type")
        return self


class ChatBody(GenerationBody):
    """A conversation that wants its next turn."""

    prompt_field: ClassVar[str] = "messages"
    not_yet: ClassVar[frozenset[str]] = GenerationBody.not_yet | {
        "audio",
        "function_call",
        "functions",
        "modalities",
        "moderation",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "tool_choice",
        "tools",
        "verbosity",
        "web_search_options",
    }

    messages: Annotated[list[Message], MinLen(1), at_most(10_000)]
    max_completion_tokens: Annotated[int, Ge(1)] | None = None
    """The newer name of max_tokens."""
    logprobs: bool = False
    top_logprobs: Annotated[int, Ge(0), Le(20)] | None = None
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[str, object] = Field(default_factory=dict)
    """Handed to the model's chat template as they are."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ChatBody":
        if self.top_logprobs is not None and not self.logprobs:
            raise wrong("is only allowed with logprobs", at="top_logprobs")
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise wrong("differs from max_tokens, which is its older name", at="max_completion_tokens")
        return self

    @property
    def asked_tokens(self) -> int | None:
        """See GenerationBody."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def top_logprobs_asked(self) -> int | None:
        """See GenerationBody."""
        return (self.top_logprobs or 0) if self.logprobs else None
