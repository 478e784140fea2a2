"""The tools of POST /v1/responses: functions, alone or in a namespace."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue

from api.schema.base import Body, wrong
from api.schema.rules import NULL, an_object, either
from api.schema.tools import MOST_TOOLS, TOOL_NAME, ToolChoice, ToolName


class ResponseTool(Body):
    """A function that the model may call."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, object] = Field(default_factory=dict)
    strict: bool | None = None
    namespace: str | None = None
    """What group it was offered in; a call names it, too."""


def _flat(value: object) -> list[dict[str, object]]:
    """The functions of a list of tools, those in namespaces among them."""
    if not isinstance(value, list) or len(value) > MOST_TOOLS:
        raise wrong(f"must be a list of at most {MOST_TOOLS} tools")
    functions = (tool for at, given in enumerate(value) for tool in _functions(given, None, at=str(at)))
    found = list(islice(functions, MOST_TOOLS + 1))
    if len(found) > MOST_TOOLS:
        raise wrong(f"hold more than {MOST_TOOLS} functions")
    return found


def _functions(given: object, namespace: str | None, *, at: str) -> Iterator[dict[str, object]]:
    match given:
        case {"type": "function", **function}:
            yield {**{str(key): value for key, value in function.items()}, "namespace": namespace}
        case {"type": "namespace", "name": str(name), "tools": list(tools)} if namespace is None:
            for inner, tool in enumerate(tools):
                yield from _functions(tool, name, at=f"{at}.tools.{inner}")
        case {"type": str(kind)}:
            raise wrong(f"tools of type {kind[:40]!r} are not supported, only functions are", at=at)
        case _:
            raise wrong("must be an object with a type", at=at)


_FUNCTION: JsonSchemaValue = an_object(type={"const": "function"}, name={"type": "string", "pattern": TOOL_NAME})
_FUNCTION["properties"] |= {
    "description": {"type": ["string", "null"]},
    "parameters": {"type": ["object", "null"]},
    "strict": {"type": ["boolean", "null"]},
    "namespace": {},
}
_FUNCTION["additionalProperties"] = NULL
_FUNCTIONS: JsonSchemaValue = {"type": "array", "maxItems": MOST_TOOLS, "items": _FUNCTION}
_NAMESPACE = an_object(type={"const": "namespace"}, name={"type": "string"}, tools=_FUNCTIONS)
TOOLS = WithJsonSchema({"type": "array", "maxItems": MOST_TOOLS, "items": either(_FUNCTION, _NAMESPACE)})

ResponseTools = Annotated[list[ResponseTool], BeforeValidator(_flat), TOOLS]


def _tool_choice(value: object) -> ToolChoice:
    """Whether tools are called, and which."""
    match value:
        case "none" | "auto" | "required":
            return ToolChoice(value)
        case {"type": "function", "name": str(name)}:
            return ToolChoice("required", frozenset({name}))
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(tools)}:
            return ToolChoice(mode, frozenset(_name(tool, at=f"tools.{at}") for at, tool in enumerate(tools)))
        case _:
            raise wrong('must be "none", "auto", "required", or {"type": "function", "name": a name}')


_NAMED = an_object(type={"const": "function"}, name={"type": "string"})
_ALLOWED = an_object(
    type={"const": "allowed_tools"},
    mode={"enum": ["auto", "required"]},
    tools={"type": "array", "items": _NAMED},
)
CHOICES = WithJsonSchema(either({"enum": ["none", "auto", "required"]}, _NAMED, _ALLOWED))
ResponseToolChoice = Annotated[ToolChoice, PlainValidator(_tool_choice), CHOICES]


def _name(tool: object, *, at: str) -> str:
    match tool:
        case {"type": "function", "name": str(name)}:
            return name
        case _:
            raise wrong('must be {"type": "function", "name": a name}', at=at)
