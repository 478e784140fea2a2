"""The tools of POST /v1/responses: functions, alone or in a namespace."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainValidator

from api.schema.base import Body, wrong
from api.schema.tools import MOST_TOOLS, ToolChoice, ToolName


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
    return [tool for at, given in enumerate(value) for tool in _functions(given, None, at=str(at))]


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


ResponseTools = Annotated[list[ResponseTool], BeforeValidator(_flat)]


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


ResponseToolChoice = Annotated[ToolChoice, PlainValidator(_tool_choice)]


def _name(tool: object, *, at: str) -> str:
    match tool:
        case {"type": "function", "name": str(name)}:
            return name
        case _:
            raise wrong('must be {"type": "function", "name": a name}', at=at)
