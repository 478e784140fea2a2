"""mlx_lm's tool parsers read whole text; where they know a format too, they must understand the same calls."""

import json
from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

import pytest
from mlx_lm.tool_parsers import glm47, json_tools, kimi_k2, mistral, pythonic, qwen3_coder

from api.parsers.parts import CallArguments, CallClosed, CallOpened, Tool, joined
from api.parsers.reader import make_reader
from api.parsers.table import tool_family

Call: TypeAlias = Mapping[str, object]

PROPERTIES = {
    "city": {"type": "string"},
    "code": {"type": "string"},
    "days": {"type": "integer"},
    "price": {"type": "number"},
    "metric": {"type": "boolean"},
    "route": {"type": "object"},
    "stops": {"type": "array"},
}
TOOL = Tool("plan", None, {"type": "object", "properties": PROPERTIES})
TOOLS = [{"type": "function", "function": {"name": "plan", "parameters": TOOL.parameters}}]

JSON_CALL = (
    '{"name": "plan", "arguments": {"city": "K\\u00f6ln \\"x\\"", "days": -3, "route": {"a": [1, {}]}, "metric": null}}'
)
QWEN_CALL = (
    "<function=plan>\n<parameter=city>\n12\n</parameter>\n<parameter=code>\nif a < b:\n\n    f('x')\n\n</parameter>\n"
    "<parameter=days>\n5\n</parameter>\n<parameter=price>\n1.5\n</parameter>\n<parameter=metric>\nTrue\n</parameter>\n"
    '<parameter=route>\n{"a": "b"}\n</parameter>\n<parameter=stops>\n[1, "x"]\n</parameter>\n'
    "<parameter=unknown>\n7\n</parameter>\n</function>"
)
GLM_CALL = (
    "plan\n<arg_key>city</arg_key>\n<arg_value>12</arg_value>\n<arg_key>days</arg_key>\n<arg_value>5</arg_value>\n"
    '<arg_key>route</arg_key>\n<arg_value>{"a": "b"}</arg_value>\n'
    "<arg_key>stops</arg_key><arg_value>[1, null]</arg_value>\n"
    "<arg_key>unknown</arg_key>\n<arg_value>7</arg_value>\n<arg_key>word</arg_key><arg_value>yes</arg_value>\n"
)
KIMI_CALLS = (
    '<|tool_call_begin|>functions.plan:0<|tool_call_argument_begin|>{"days": 1}<|tool_call_end|>'
    '<|tool_call_begin|>functions.plan:1<|tool_call_argument_begin|>{"city": "<|tool_call_end "}<|tool_call_end|>'
)
PYTHON_CALLS = (
    "[plan(city='Köln \\'x\\'', days=-3, metric=True, stops=[1, 'a)', None]), plan(route={'a': {}}, price=1e3)]"
)

CASES = [
    ("hermes", "<tool_call>\n", JSON_CALL, "\n</tool_call>", json_tools.parse_tool_call),
    ("qwen", "<tool_call>\n", JSON_CALL, "\n</tool_call>", json_tools.parse_tool_call),
    ("granite", "<tool_call>\n", JSON_CALL, "\n</tool_call>", json_tools.parse_tool_call),
    ("nemotron", "<TOOLCALL>", f"[{JSON_CALL}, {JSON_CALL}]", "</TOOLCALL>", json_tools.parse_tool_call),
    ("granite", "<|tool_call|>", f"[{JSON_CALL}]", "", json_tools.parse_tool_call),
    ("xlam", "", f"[{JSON_CALL}]", "", json_tools.parse_tool_call),
    ("qwen", "<tool_call>\n", QWEN_CALL, "\n</tool_call>", qwen3_coder.parse_tool_call),
    ("nemotron", "<tool_call>\n", QWEN_CALL, "\n</tool_call>", qwen3_coder.parse_tool_call),
    ("glm47", "<tool_call>", GLM_CALL, "</tool_call>", glm47.parse_tool_call),
    ("glm47", "<tool_call>", GLM_CALL.replace("\n", ""), "</tool_call>", glm47.parse_tool_call),
    ("kimi", "<|tool_calls_section_begin|>", KIMI_CALLS, "<|tool_calls_section_end|>", kimi_k2.parse_tool_call),
    ("mistral", "[TOOL_CALLS]", f"[{JSON_CALL}]", "", mistral.parse_tool_call),
    ("mistral", "[TOOL_CALLS]", 'plan[ARGS]{"city": "x"}', "", mistral.parse_tool_call),
    (
        "mistral",
        "[TOOL_CALLS]",
        '[{"name": "plan"}, {"name": "plan", "arguments": "{\\"days\\": 1}"}]',
        "",
        mistral.parse_tool_call,
    ),
    ("llama", "<|python_start|>", PYTHON_CALLS, "<|python_end|>", pythonic.parse_tool_call),
]


def ours(family: str, text: str) -> list[tuple[str, object]]:
    reader = make_reader(tools=tool_family(family, "", ()), reasoning=None, offered=(TOOL,), prompt_tail="")
    parts = joined([part for character in text for part in reader.feed(character)] + reader.finish())
    assert {type(part) for part in parts} == {CallOpened, CallArguments, CallClosed}, parts
    names = [part.name for part in parts if isinstance(part, CallOpened)]
    arguments = [json.loads(part.text) for part in parts if isinstance(part, CallArguments)]
    return list(zip(names, arguments, strict=True))


@pytest.mark.parametrize(
    ("family", "before", "call", "after", "parse"), CASES, ids=[f"{one[0]} {one[2][:24]}" for one in CASES]
)
def test_mlx_lm_understands_the_same(
    family: str, before: str, call: str, after: str, parse: Callable[[str, object], object]
) -> None:
    found = parse(call, TOOLS)
    theirs = cast("list[Call]", found if isinstance(found, list) else [found])

    assert ours(family, before + call + after) == [(one["name"], one["arguments"]) for one in theirs]
