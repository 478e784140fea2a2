"""What a request of Anthropic's Messages API may ask for: tools, thinking, and the form of the answer."""

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, MaxLen
from pydantic import BeforeValidator, Field, model_validator

from api.schema.base import Body, at_most, wrong
from api.schema.chat import JsonSchema, ResponseFormat
from api.schema.rules import Rules, all_of, either, has, lacks, says
from api.schema.tools import MOST_TOOLS, FunctionDefinition, FunctionTool, ToolChoice, ToolName


def _with_a_schema(tool: object) -> object:
    match tool:
        case {"type": str(kind)} if kind != "custom":
            raise wrong(
                f"tools of type {kind[:40]!r} are not supported, only those with an input_schema are", at="type"
            )
    return tool


class Tool(Body):
    """A tool that the model may use."""

    type: Literal["custom"] | None = None
    name: ToolName
    description: str | None = None
    input_schema: dict[str, object]
    input_examples: list[dict[str, object]] | None = None
    """Told to the model beside the schema."""
    allowed_callers: list[Literal["direct"]] | None = None
    strict: bool | None = None
    """Wanted calls always follow the schema; others are the model's own, whatever this says."""
    defer_loading: bool | None = None
    """Every tool is there from the beginning."""
    eager_input_streaming: bool | None = None
    """Inputs are always streamed as they are written."""
    cache_control: object = None

    @property
    def as_function(self) -> FunctionTool:
        examples = {"examples": self.input_examples} if self.input_examples else {}
        definition = FunctionDefinition(
            name=self.name, description=self.description, parameters=self.input_schema | examples
        )
        return FunctionTool(type="function", function=definition)


Tools = Annotated[list[Annotated[Tool, BeforeValidator(_with_a_schema)]], at_most(MOST_TOOLS)]


class Choice(Body):
    """Whether tools are used."""

    rules: ClassVar[Rules] = (
        either(
            all_of(says("type", "tool"), has("name")),
            all_of(says("type", "auto", "any", "none"), lacks("name")),
        ),
    )

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False

    _MODES: ClassVar[dict[str, Literal["auto", "required", "none"]]] = {
        "auto": "auto",
        "any": "required",
        "tool": "required",
        "none": "none",
    }

    @model_validator(mode="after")
    def _names_its_tool(self) -> "Choice":
        if (self.name is not None) != (self.type == "tool"):
            raise wrong("belongs to the type tool, which must have it", at="name")
        return self

    @property
    def as_choice(self) -> ToolChoice:
        return ToolChoice(self._MODES[self.type], None if self.name is None else frozenset({self.name}))


class ThinkingConfig(Body):
    """Whether to think before answering, where the model can do both."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Ge(0)] | None = None
    """A hint; how much thinking there may be is for the operator to say."""
    display: Literal["summarized", "omitted"] | None = None
    """Thinking is shown in full, or not at all."""

    @property
    def template_kwargs(self) -> dict[str, object]:
        """The name under which Qwen3's and most later templates take it; with other types the model decides."""
        return {"enable_thinking": self.type == "enabled"} if self.type in ("enabled", "disabled") else {}


class OutputFormat(Body):
    """What the answer must look like: enforced while it is written."""

    type: Literal["json_schema"]
    schema_: dict[str, object] = Field(alias="schema")

    @property
    def as_response_format(self) -> ResponseFormat:
        return ResponseFormat(type="json_schema", json_schema=JsonSchema.model_validate({"schema": self.schema_}))


class OutputConfig(Body):
    """How to answer."""

    effort: Annotated[str, MaxLen(40)] | None = None
    """Handed to the chat template as reasoning_effort."""
    format: OutputFormat | None = None
    task_budget: object = None
