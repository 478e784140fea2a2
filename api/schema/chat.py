"""POST /v1/chat/completions: what a client may send, as OpenAI's API reference has it."""

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import AliasChoices, BeforeValidator, Field, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError

from api.schema.base import Body, OrAlso, at_most, wrong
from api.schema.generation import GenerationBody
from api.schema.rules import Rules, all_of, an_object, either, has, lacks, says
from api.schema.tools import FunctionTool, ToolCall, ToolChoice, ToolChoiceField, Tools

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
        case {"type": "text", "text": str(text), **rest} if rest.keys() <= {"cache_control"}:
            return text
        case {"type": "text"}:
            raise wrong('must be {"type": "text", "text": a string}', at=at)
        case _:
            raise refused_part(part, at=at)


def refused_part(part: object, *, at: str) -> PydanticCustomError:
    """What is wrong with a part of some content that is no text."""
    match part:
        case {"type": str(kind)} if kind in IMAGE_PARTS:
            return wrong("the model is text-only, it cannot take images", at=at)
        case {"type": str(kind)}:
            return wrong(f"parts of type {kind[:40]!r} are not supported", at=at)
        case _:
            return wrong("must be an object with a type", at=at)


_PART = an_object(type={"const": "text"}, text={"type": "string"})
_PART["properties"]["cache_control"] = {}
_PART["additionalProperties"] = False
PARTS = OrAlso({"type": "array", "minItems": 1, "maxItems": 10_000, "items": _PART})

_NOT_ASSISTANT: JsonSchemaValue = {
    "properties": {
        "tool_calls": {"type": ["array", "null"], "maxItems": 0},
        "reasoning_content": {"enum": ["", None]},
        "reasoning": {"enum": ["", None]},
    }
}
_TEXT: JsonSchemaValue = {"type": "string", "minLength": 1}


class Message(Body):
    """One turn of the conversation."""

    rules: ClassVar[Rules] = (
        either(
            all_of(says("role", "system", "developer", "user"), has("content"), lacks("tool_call_id"), _NOT_ASSISTANT),
            all_of(says("role", "tool"), has("content"), has("tool_call_id"), _NOT_ASSISTANT),
            *(
                all_of(says("role", "assistant"), lacks("tool_call_id"), something)
                for something in (
                    has("content"),
                    has("tool_calls", {"type": "array", "minItems": 1}),
                    has("reasoning_content", _TEXT),
                    all_of(has("reasoning", _TEXT), lacks("reasoning_content")),
                )
            ),
        ),
    )

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, BeforeValidator(_joined), PARTS, at_most(10_000)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], at_most(1_000)] = Field(default_factory=list)
    tool_call_id: str | None = None
    reasoning_content: str | None = Field(None, validation_alias=AliasChoices("reasoning_content", "reasoning"))
    """What the assistant thought before it said this."""
    annotations: list[object] | None = None
    """Sent back by clients that keep whole replies; there are none to tell the model of."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"audio", "function_call", "refusal"})

    @model_validator(mode="after")
    def _fits_its_role(self) -> "Message":
        if self.content is None and not self.tool_calls and not self.reasoning_content:
            raise wrong("is missing", at="content")
        for field in ("tool_calls", "reasoning_content"):
            if getattr(self, field) and self.role != "assistant":
                raise wrong("is for messages of the assistant", at=field)
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise wrong("belongs to messages of a tool, which must have it", at="tool_call_id")
        return self

    def for_template(self) -> dict[str, object]:
        """As chat templates read it: `developer` is the newer name of `system`."""
        fields = self.model_dump(exclude_defaults=True, exclude={"annotations"})
        role = "system" if self.role == "developer" else self.role
        return {**fields, "role": role, "content": self.content or ""}


class JsonSchema(Body):
    """What the answer must look like."""

    name: str = ""
    description: str | None = None
    schema_: dict[str, object] = Field(alias="schema")
    strict: bool | None = None
    """It is enforced, whatever this says."""


class ResponseFormat(Body):
    """The form of the answer: enforced while it is written."""

    rules: ClassVar[Rules] = (
        either(
            all_of(says("type", "json_schema"), has("json_schema")),
            all_of(says("type", "text", "json_object"), lacks("json_schema")),
        ),
    )

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> "ResponseFormat":
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise wrong("belongs to the type json_schema, which must have it", at="json_schema")
        return self


CHOOSES_FREELY: JsonSchemaValue = {"properties": {"tool_choice": {"enum": ["none", "auto", None]}}}


class ChatBody(GenerationBody):
    """A conversation that wants its next turn."""

    prompt_field: ClassVar[str] = "messages"
    form_field: ClassVar[str] = "response_format.json_schema.schema"
    """The field that holds the schema of the answer."""
    rules: ClassVar[Rules] = (
        *GenerationBody.rules,
        either(lacks("top_logprobs"), says("logprobs", True)),
        either(CHOOSES_FREELY, has("tools", {"minItems": 1})),
    )
    not_yet: ClassVar[frozenset[str]] = GenerationBody.not_yet | {
        "audio",
        "function_call",
        "functions",
        "moderation",
        "prediction",
        "web_search_options",
    }
    continues: ClassVar[bool] = False
    """Whether the last message is the beginning of the answer."""

    messages: Annotated[list[Message], MinLen(1), at_most(10_000)]
    max_completion_tokens: Annotated[int, Ge(1)] | None = None
    """The newer name of max_tokens."""
    logprobs: bool = False
    top_logprobs: Annotated[int, Ge(0), Le(20)] | None = None
    tools: Tools = Field(default_factory=list)
    tool_choice: ToolChoiceField = ToolChoice("auto")
    parallel_tool_calls: bool = True
    """Whether a wanted call may be more than one."""
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[str, object] = Field(default_factory=dict)
    """Handed to the model's chat template as they are."""
    reasoning_effort: Annotated[str, MaxLen(40)] | None = None
    """Handed to the chat template, too; `none` also asks it for no thinking at all."""
    modalities: list[Literal["text"]] | None = None
    verbosity: Literal["medium"] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "ChatBody":
        if self.top_logprobs is not None and not self.logprobs:
            raise wrong("is only allowed with logprobs", at="top_logprobs")
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise wrong("differs from max_tokens, which is its older name", at="max_completion_tokens")
        return self

    @model_validator(mode="after")
    def _tools_are_known(self) -> "ChatBody":
        names = [tool.function.name for tool in self.tools]
        for name in names:
            if names.count(name) > 1:
                raise wrong(f"hold two functions named {name!r}", at="tools")
        if self.tool_choice.mode == "required" and not names:
            raise wrong("needs tools", at="tool_choice")
        for name in self.tool_choice.only or ():
            if name not in names:
                raise wrong(f"names the function {name[:64]!r}, which is not among the tools", at="tool_choice")
        return self

    @property
    def asked_tokens(self) -> int | None:
        """See GenerationBody."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def top_logprobs_asked(self) -> int | None:
        """See GenerationBody."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def offered(self) -> list[FunctionTool]:
        """The tools that may be called."""
        if self.tool_choice.mode == "none":
            return []
        only = self.tool_choice.only
        return [tool for tool in self.tools if only is None or tool.function.name in only]

    @property
    def template_kwargs(self) -> dict[str, object]:
        """All that the chat template is told beside messages and tools."""
        if self.reasoning_effort is None:
            return self.chat_template_kwargs
        thinking = {"enable_thinking": False} if self.reasoning_effort == "none" else {}
        return {"reasoning_effort": self.reasoning_effort, **thinking, **self.chat_template_kwargs}
