"""Tools that a chat offers, calls that were made, and which call is wanted, as OpenAI's API reference has them."""

from dataclasses import dataclass
from typing import Annotated, Literal

import orjson
from annotated_types import MaxLen
from pydantic import BeforeValidator, Field, PlainValidator, StringConstraints, WithJsonSchema

from api.schema.base import Body, at_most, too_deep, wrong
from api.schema.rules import an_object, either

MOST_TOOLS = 512

TOOL_NAME = r"^[a-zA-Z0-9_.:/-]{1,128}$"
ToolName = Annotated[str, StringConstraints(pattern=TOOL_NAME)]
"""OpenAI's letters are a-z, A-Z, 0-9, _ and -; some clients' own names have dots, colons and slashes, too."""


def _function_only(tool: object) -> object:
    match tool:
        case {"type": str(kind)} if kind != "function":
            raise wrong(f"tools of type {kind[:40]!r} are not supported, only functions are", at="type")
    return tool


class FunctionDefinition(Body):
    """What the model is told of a function."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, object] = Field(default_factory=dict)
    """A JSON schema of an object; none takes any object."""
    strict: bool | None = None
    """Wanted arguments always follow the schema; others are the model's own, whatever this says."""


class FunctionTool(Body):
    """A function that the model may call."""

    type: Literal["function"]
    function: FunctionDefinition


def _arguments(text: object) -> object:
    """Arguments travel as JSON text, and templates want the object; models write nothing for no arguments.

    Text that is no JSON object, or one nested too deeply, is what a model wrote when it went wrong: the template gets
    it as it is, so that the conversation can go on.
    """
    if not isinstance(text, str):
        raise wrong("must be a JSON object in a string")
    try:
        arguments = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return text
    return arguments if isinstance(arguments, dict) and not too_deep(arguments) else text


JSON_TEXT = WithJsonSchema({"type": "string", "contentMediaType": "application/json"})
Arguments = Annotated[dict[str, object] | str, BeforeValidator(_arguments), JSON_TEXT]


class CalledFunction(Body):
    """What the assistant called."""

    name: Annotated[str, MaxLen(1024)]
    arguments: Arguments


class ToolCall(Body):
    """A call that the assistant made earlier in the conversation."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None
    """Where it was in a stream; clients send back what they put together."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools are called."""

    mode: Literal["none", "auto", "required"]
    only: frozenset[str] | None = None
    """The names it may be; None for any."""


def _tool_choice(value: object) -> ToolChoice:
    match value:
        case ToolChoice():
            return value
        case "none" | "auto" | "required":
            return ToolChoice(value)
        case {"type": "function", "function": {"name": str(name)}}:
            return ToolChoice("required", frozenset({name}))
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(tools)}}:
            return ToolChoice(mode, frozenset(_allowed_name(tool, at=str(at)) for at, tool in enumerate(tools)))
        case _:
            raise wrong('must be "none", "auto", "required", or {"type": "function", "function": {"name": a name}}')


def _allowed_name(tool: object, *, at: str) -> str:
    match tool:
        case {"type": "function", "function": {"name": str(name)}}:
            return name
        case _:
            raise wrong('must be {"type": "function", "function": {"name": a name}}', at=f"allowed_tools.tools.{at}")


_FUNCTION = an_object(type={"const": "function"}, function=an_object(name={"type": "string"}))
_ALLOWED = an_object(mode={"enum": ["auto", "required"]}, tools={"type": "array", "items": _FUNCTION})
CHOICES = WithJsonSchema(
    either(
        {"enum": ["none", "auto", "required"]},
        _FUNCTION,
        an_object(type={"const": "allowed_tools"}, allowed_tools=_ALLOWED),
    )
)
ToolChoiceField = Annotated[ToolChoice, PlainValidator(_tool_choice), CHOICES]
Tools = Annotated[list[Annotated[FunctionTool, BeforeValidator(_function_only)]], at_most(MOST_TOOLS)]
