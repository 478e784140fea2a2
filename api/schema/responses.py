"""POST /v1/responses: what a client may send, as OpenAI's API reference has it, and the chat that it is."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BeforeValidator, Field, model_validator

from api.schema.base import Body, Off, OrAlso, at_most, wrong
from api.schema.chat import CHOOSES_FREELY, ChatBody, JsonSchema, Message, ResponseFormat
from api.schema.generation import CacheSalt, StreamOptions
from api.schema.response_items import Item, messages_of
from api.schema.response_tools import ResponseTool, ResponseToolChoice, ResponseTools
from api.schema.rules import Rules, all_of, either, has, lacks, says
from api.schema.tools import FunctionDefinition, FunctionTool, ToolChoice


def _as_items(given: object) -> object:
    """A string is what the user says."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


class TextFormat(Body):
    """The form of the answer."""

    rules: ClassVar[Rules] = (
        either(
            all_of(says("type", "json_schema"), has("schema")),
            all_of({"properties": {"type": {"enum": ["text", "json_object", None]}}}, lacks("schema")),
        ),
    )

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    description: str | None = None
    schema_: dict[str, object] | None = Field(None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> "TextFormat":
        if (self.schema_ is not None) != (self.type == "json_schema"):
            raise wrong("belongs to the type json_schema, which must have it", at="schema")
        return self

    def as_chat(self) -> ResponseFormat:
        if self.schema_ is None:
            return ResponseFormat(type=self.type)
        schema = JsonSchema.model_validate({"name": self.name, "schema": self.schema_})
        return ResponseFormat(type=self.type, json_schema=schema)


class TextOptions(Body):
    """How to say it."""

    format: TextFormat = TextFormat()
    verbosity: Literal["low", "medium", "high"] | None = None
    """A hint to models that were trained to take it; others are not told."""


class Reasoning(Body):
    """How to think."""

    effort: Annotated[str, MaxLen(40)] | None = None
    """Handed to the chat template, see ChatBody."""
    summary: Literal["auto", "concise", "detailed"] | None = None
    """The thinking is sent in full, never in summary."""
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ResponsesBody(Body):
    """Items of a conversation that want their next."""

    rules: ClassVar[Rules] = (either(CHOOSES_FREELY, has("tools", {"minItems": 1})),)
    not_yet: ClassVar[frozenset[str]] = frozenset({"conversation", "prompt", "moderation", "max_tool_calls"})

    model: str = "default"
    input: Annotated[list[Item], MinLen(1), at_most(10_000), BeforeValidator(_as_items), OrAlso({"type": "string"})]
    instructions: str | None = None
    """Said before everything else; not carried on by previous_response_id."""
    previous_response_id: Annotated[str, MaxLen(100)] | None = None
    max_output_tokens: Annotated[int, Ge(1)] | None = None
    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_p: Annotated[float, Ge(0), Le(1)] | None = None
    top_logprobs: Annotated[int, Ge(0), Le(20)] | None = None
    text: TextOptions = TextOptions()
    tools: ResponseTools = Field(default_factory=list)
    tool_choice: ResponseToolChoice = ToolChoice("auto")
    parallel_tool_calls: bool = True
    reasoning: Reasoning = Reasoning()
    include: list[Annotated[str, MaxLen(100)]] = Field(default_factory=list)
    """Only message.output_text.logprobs adds anything: nothing else that can be included is ever there."""
    store: bool = True
    stream: bool = False
    stream_options: StreamOptions | None = None
    truncation: Literal["disabled"] | None = None
    background: Off = False
    service_tier: Literal["auto", "default"] | None = None
    metadata: dict[str, str] | None = None
    client_metadata: dict[str, str] | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    cache_salt: CacheSalt | None = None
    """Not OpenAI's: see GenerationBody."""
    chat_template_kwargs: dict[str, object] = Field(default_factory=dict)

    @property
    def wants_logprobs(self) -> bool:
        return "message.output_text.logprobs" in self.include or self.top_logprobs is not None

    @property
    def introduction(self) -> list[Message]:
        """The instructions, as the message that a chat begins with."""
        return [Message(role="system", content=self.instructions)] if self.instructions else []

    def as_chat(self, earlier: Iterable[Message] = ()) -> ChatBody:
        """The same as a chat, behind the messages of `earlier` responses.

        Raises:
            pydantic.ValidationError: it is none; see ChatBody.
        """
        return ResponsesChat(
            model=self.model,
            messages=[*self.introduction, *earlier, *messages_of(self.input)],
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            logprobs=self.wants_logprobs,
            top_logprobs=self.top_logprobs,
            tools=[_as_function(tool) for tool in self.tools],
            tool_choice=self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=self.text.format.as_chat(),
            reasoning_effort=self.reasoning.effort,
            chat_template_kwargs=self.chat_template_kwargs,
            stream=self.stream,
            cache_salt=self.cache_salt,
        )


class ResponsesChat(ChatBody):
    """A chat that is told in other words: errors name the fields of a ResponsesBody."""

    prompt_field: ClassVar[str] = "input"
    form_field: ClassVar[str] = "text.format.schema"


def _as_function(tool: ResponseTool) -> FunctionTool:
    definition = FunctionDefinition(name=tool.name, description=tool.description, parameters=tool.parameters)
    return FunctionTool(type="function", function=definition)
