"""Tools as text, for chat templates that do not know of them, in the format that the model's family writes.

Where nothing else is known it is that of Nous Research's Hermes models, which most open models have seen
(github.com/NousResearch/Hermes-Function-Calling).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from api.text.conversation import ToolObject


class Function(TypedDict):
    """The function of a call."""

    name: str
    arguments: dict[str, object]


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a family of models writes offers, calls and results."""

    how_to_call: str
    """What the model is told of the format of calls."""
    calls: Callable[[Sequence[Function]], str]

    def offer(self, tools: Sequence[ToolObject]) -> str:
        """What the model is told of the tools that it may call."""
        listed = "\n".join(as_json(tool) for tool in tools)
        return (
            "# Tools\n\nYou may call functions to help with the user's request. "
            f"These are the functions, one JSON object on a line:\n<tools>\n{listed}\n</tools>\n\n{self.how_to_call}"
        )

    def result(self, content: str) -> str:
        """What a function returned."""
        return f"<tool_response>\n{content}\n</tool_response>"


def spelling_of(template: str) -> Spelling:
    """That of the family whose marker is in a chat template."""
    return next((spelling for marker, spelling in _FAMILIES.items() if marker in template), HERMES)


def as_json(value: object) -> str:
    """JSON as templates write it (transformers' `tojson`), and as grammars have the model write it."""
    return json.dumps(value, ensure_ascii=False)


def _hermes_calls(functions: Sequence[Function]) -> str:
    calls = ({"name": function["name"], "arguments": function["arguments"]} for function in functions)
    return "\n".join(f"<tool_call>\n{as_json(call)}\n</tool_call>" for call in calls)


def _deepseek_calls(functions: Sequence[Function]) -> str:
    calls = "".join(
        f"<｜tool▁call▁begin｜>{function['name']}<｜tool▁sep｜>{as_json(function['arguments'])}<｜tool▁call▁end｜>"
        for function in functions
    )
    return f"<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>"


def _granite_calls(functions: Sequence[Function]) -> str:
    calls = [{"name": function["name"], "arguments": function["arguments"]} for function in functions]
    return f"<|tool_call|>{as_json(calls)}"


def _lfm2_calls(functions: Sequence[Function]) -> str:
    calls = (f"{function['name']}({_keywords(function['arguments'])})" for function in functions)
    return f"<|tool_call_start|>[{', '.join(calls)}]<|tool_call_end|>"


def _keywords(arguments: dict[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


HERMES = Spelling(
    "To call a function, write its name and its arguments as a JSON object between tags, like this, and write one "
    "such object for each call:\n"
    '<tool_call>\n{"name": "the name of the function", "arguments": {"the name of an argument": "its value"}}\n'
    "</tool_call>",
    _hermes_calls,
)

_GIVEN = ""
"""These templates make the offers themselves."""

_FAMILIES = {
    # As the model card of DeepSeek-V3.1 has it; its template, like those of V3 and R1, says nothing of the tools.
    "<｜tool▁calls▁begin｜>": Spelling(
        "To call functions, write exactly this, with as many calls as are needed in the place of one:\n"
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>the name of the function<｜tool▁sep｜>"
        "its arguments as a JSON object<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        _deepseek_calls,
    ),
    # IBM's Granite 3: the template offers tools and asks for this, and leaves it to the message to hold it.
    "respond only with <|tool_call|>": Spelling(_GIVEN, _granite_calls),
    # Liquid's LFM2, by its model card.
    "List of tools: ": Spelling(_GIVEN, _lfm2_calls),
}
