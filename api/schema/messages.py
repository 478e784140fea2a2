"""POST /v1/messages: what a client may send, as Anthropic's API reference has it, and the chat that it is.

Fields that change nothing here are taken and left: marks for caches, where and how fast to compute, hints on how
much to think, and leave to forget parts of the conversation, which is never made use of.
"""

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import Field, model_validator
from pydantic.json_schema import JsonSchemaValue

from api.schema.base import Body, at_most, wrong
from api.schema.chat import ChatBody
from api.schema.generation import CacheSalt, StopString
from api.schema.message_blocks import TextBlocks, paragraphs
from api.schema.message_options import Choice, OutputConfig, OutputFormat, ThinkingConfig, Tools
from api.schema.message_turns import InputMessage, chat_messages, check_results, introduction, turns_of
from api.schema.rules import Rules, either, has, lacks

Fraction = Annotated[float, Ge(0), Le(1)]


_CHOOSES_FREELY: JsonSchemaValue = {"properties": {"tool_choice": {"properties": {"type": {"enum": ["auto", "none"]}}}}}


class CountBody(Body):
    """A conversation whose tokens are to be counted: all that POST /v1/messages takes."""

    rules: ClassVar[Rules] = (
        either(_CHOOSES_FREELY, has("tools", {"minItems": 1})),
        either(lacks("output_format"), {"properties": {"output_config": lacks("format")}}),
    )
    not_yet: ClassVar[frozenset[str]] = frozenset(
        {"billing_policy", "compaction", "container", "fallback_credit_token", "fallbacks", "mcp_servers", "thread"}
    )

    model: str
    messages: Annotated[list[InputMessage], MinLen(1), at_most(10_000)]
    max_tokens: Annotated[int, Ge(1)] | None = None
    system: TextBlocks = Field(default_factory=list)
    temperature: Fraction | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Ge(0)] = 0
    stop_sequences: Annotated[list[StopString], at_most(16)] = Field(default_factory=list)
    stream: bool = False
    tools: Tools = Field(default_factory=list)
    tool_choice: Choice = Choice(type="auto")
    thinking: ThinkingConfig = ThinkingConfig(type="adaptive")
    output_config: OutputConfig = OutputConfig()
    output_format: OutputFormat | None = None
    """The older name of output_config.format."""
    metadata: object = None
    service_tier: Literal["auto", "standard_only"] | None = None
    cache_control: object = None
    cache_salt: CacheSalt | None = None
    """Not Anthropic's: see GenerationBody."""
    context_management: object = None
    diagnostics: object = None
    inference_geo: str | None = None
    speed: Literal["standard", "fast"] | None = None
    user_profile_id: str | None = None

    @model_validator(mode="after")
    def _tools_are_known(self) -> "CountBody":
        names = [tool.name for tool in self.tools]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise wrong("Tool names must be unique.", at=f"tools.{at}.name")
        wanted = self.tool_choice.name
        if wanted is not None and wanted not in names:
            raise wrong(f"Tool {wanted[:64]!r} not found in provided tools", at="tool_choice.name")
        if self.tool_choice.type == "any" and not names:
            raise wrong("needs tools", at="tool_choice")
        return self

    @model_validator(mode="after")
    def _messages_are_whole(self) -> "CountBody":
        if not self._said:
            raise wrong("at least one message must have content", at="messages")
        for at, message in enumerate(self._said):
            if not message.content:
                problem = "all messages must have non-empty content except for the optional final assistant message"
                raise wrong(problem, at=f"messages.{at}")
        check_results(turns_of(self._said))
        return self

    @model_validator(mode="after")
    def _can_be_continued(self) -> "CountBody":
        if self.output_config.format and self.output_format:
            raise wrong("is the older name of output_config.format, which is there, too", at="output_format")
        if not self._continues:
            return self
        begun = self._said[-1].text
        if not begun or begun != begun.rstrip():
            problem = "cannot end with trailing whitespace" if begun else "must end with text"
            raise wrong(f"final assistant content {problem}", at="messages")
        if self._format or self.tool_choice.as_choice.mode == "required":
            raise wrong("an answer that is begun by the last message can be free text only", at="messages")
        return self

    @property
    def _said(self) -> list[InputMessage]:
        """The messages; a last one of the assistant that is empty begins nothing."""
        *others, last = self.messages
        return others if last.role == "assistant" and not last.content else self.messages

    @property
    def _continues(self) -> bool:
        """Whether the last message is the beginning of the answer."""
        return self._said[-1].role == "assistant"

    @property
    def _format(self) -> OutputFormat | None:
        """What the answer must look like."""
        return self.output_config.format or self.output_format

    @property
    def shows_thinking(self) -> bool:
        """Whether the client wants to read what the model thinks."""
        return self.thinking.display != "omitted"

    def as_chat(self, *, temperature: float, top_p: float) -> ChatBody:
        """The same as a chat; `temperature` and `top_p` are for clients that do not say.

        Raises:
            pydantic.ValidationError: it is none; see ChatBody.
        """
        system = paragraphs([*(block.text for block in self.system), introduction(self._said)])
        kind = ContinuedChat if self._continues else ChatBody
        return kind(
            model=self.model,
            messages=list(chat_messages(system, turns_of(self._said))),
            max_tokens=self.max_tokens,
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=top_p if self.top_p is None else self.top_p,
            top_k=self.top_k,
            stop=self.stop_sequences,
            stream=self.stream,
            tools=[tool.as_function for tool in self.tools],
            tool_choice=self.tool_choice.as_choice,
            parallel_tool_calls=not self.tool_choice.disable_parallel_tool_use,
            response_format=self._format.as_response_format if self._format else None,
            chat_template_kwargs=self.thinking.template_kwargs,
            reasoning_effort=self.output_config.effort,
            cache_salt=self.cache_salt,
        )


class ContinuedChat(ChatBody):
    """A chat whose last message is the beginning of the answer."""

    continues: ClassVar[bool] = True


class MessagesBody(CountBody):
    """A conversation that wants its next message."""

    max_tokens: Annotated[int, Ge(1)]
