"""The golden transcripts: what models of each family write, and what it means."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from api.parsers.parts import Tool

HERE = Path(__file__).parent

Said = tuple[Literal["thinking", "content"], str]
Called = tuple[Literal["call"], str, JsonValue, Literal["closed", "open"]]


class Transcript(BaseModel):
    """One reply of a model. `parts` is what it means; neighbours of one kind are joined."""

    model_config = ConfigDict(extra="forbid")

    name: str
    source: str
    family: str | None = None
    reasoning: str | None = None
    tools: list[str] | None = None
    prompt_tail: str = ""
    silent: list[str] | None = None
    template: str | None = None
    streamed: bool = True
    """The arguments are JSON behind the name, so that they can be passed on as they come."""
    auto: bool | str = True
    """`auto` finds the same without a template; otherwise why it need not."""
    text: str
    parts: list[Said | Called]


class Family(BaseModel):
    """A file of transcripts. `templates` are synthetic: they hold the markers of the real ones, no more."""

    model_config = ConfigDict(extra="forbid")

    family: str
    silent: list[str]
    templates: dict[str, str]
    transcripts: list[Transcript]


@dataclass(frozen=True)
class Golden:
    """A transcript with everything its file says of it."""

    family: str | None
    """The tool parser to be used; None where only the thinking is parsed."""
    template: str | None
    silent: frozenset[str]
    offered: tuple[Tool, ...]
    said: Transcript

    def __str__(self) -> str:
        return f"{self.family or self.said.reasoning}: {self.said.name}"


REASONING_ONLY = ("qwen3", "deepseek_r1")


def golden(file: Family, said: Transcript) -> Golden:
    family = said.family or file.family
    silent = file.silent if said.silent is None else said.silent
    return Golden(
        family=None if family in REASONING_ONLY else family,
        template=None if said.template is None else file.templates[said.template],
        silent=frozenset(silent),
        offered=tuple(tool for tool in catalogue() if said.tools is None or tool.name in said.tools),
        said=said,
    )


@cache
def catalogue() -> tuple[Tool, ...]:
    """The tools that the transcripts call."""
    tools: dict[str, dict[str, str]] = json.loads((HERE / "tools.json").read_text())
    return tuple(Tool(name, parameters=schema(properties)) for name, properties in tools.items())


def schema(properties: dict[str, str]) -> dict[str, object]:
    return {"type": "object", "properties": {name: {"type": kind} for name, kind in properties.items()}}


@cache
def all_golden() -> tuple[Golden, ...]:
    files = [Family.model_validate_json(path.read_text()) for path in sorted((HERE / "transcripts").glob("*.json"))]
    return tuple(golden(file, said) for file in files for said in file.transcripts)
