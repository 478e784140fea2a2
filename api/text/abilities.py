"""What a chat template makes of tools, found out by trying: conversations with words that must show in what it writes.

llama.cpp finds it out in the same way (the "caps" of its template engine); reading templates is guessing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from api.text.conversation import ChatMessage, ToolObject

Render = Callable[[Sequence[ChatMessage], Sequence[ToolObject], Mapping[str, object]], str]
"""Renders messages, tools and template_kwargs for the assistant's turn; raises what the template raises."""

SHORT_ID = re.compile("[a-zA-Z0-9]{9}")
"""The only ids of calls that Mistral's templates take."""

_TOOL, _KEY, _RESULT, _SYSTEM = "probe_tool", "probe_key", "probe_result", "probe_system"
_VALUE, _OTHER_VALUE = "probe_value", "other_value"
_OFFER: ToolObject = {
    "type": "function",
    "function": {
        "name": _TOOL,
        "description": "A tool.",
        "parameters": {
            "type": "object",
            "properties": {_KEY: {"type": "string", "description": "A text."}},
            "required": [_KEY],
        },
    },
}
_USER: ChatMessage = {"role": "user", "content": "Hello."}
_ANSWER: ChatMessage = {"role": "assistant", "content": "Hello."}
_LONG_ID, _SHORT_ID, _OTHER_ID = "call_0123456789", "call01234", "call56789"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a template does by itself."""

    system: bool
    """It has a place for a system message."""
    offers: bool
    """It tells the model of the tools it is given."""
    calls: bool
    """It writes the calls that the assistant made."""
    parallel_calls: bool
    """It writes all calls of a message that has several."""
    text_arguments: bool
    """It wants the arguments of a call as JSON text, not as an object."""
    short_ids: bool
    """It wants ids that match SHORT_ID."""
    results: bool
    """It writes the messages of tools, in a format that goes with its own offers or calls."""


def try_out(render: Render) -> Abilities:
    """What the template behind `render` can do; one that refuses a trial cannot."""

    def shows(word: str, *messages: ChatMessage, tools: Sequence[ToolObject] = ()) -> bool:
        try:
            text = render(messages, tools, {})
        # A template may raise anything.
        except Exception:
            return False
        # The quotes of an object's keys are escaped where a template wrote JSON text as a JSON string.
        return word in text and f'\\"{_KEY}' not in text

    offers = shows(_TOOL, _USER, tools=[_OFFER])
    tools = [_OFFER] if offers else []
    ways = [(text, call_id) for call_id in (_LONG_ID, _SHORT_ID) for text in (False, True)]
    way = next((way for way in ways if shows(_VALUE, _USER, _call(*way), _result(way[1]), tools=tools)), None)
    text_arguments, call_id = way or ways[0]
    calling = _call(text_arguments, call_id) if way else _ANSWER
    both = _both(calling, _call(text_arguments, _OTHER_ID, _OTHER_VALUE))
    results = (_result(call_id), _result(_OTHER_ID))
    return Abilities(
        system=shows(_SYSTEM, {"role": "system", "content": _SYSTEM}, _USER),
        offers=offers,
        calls=way is not None,
        parallel_calls=all(shows(value, _USER, both, *results, tools=tools) for value in (_VALUE, _OTHER_VALUE)),
        text_arguments=text_arguments,
        short_ids=call_id == _SHORT_ID,
        results=(offers or way is not None) and shows(_RESULT, _USER, calling, results[0], tools=tools),
    )


def _both(one: ChatMessage, other: ChatMessage) -> ChatMessage:
    calls = [one.get("tool_calls"), other["tool_calls"]]
    return {**one, "tool_calls": [call for some in calls if isinstance(some, list) for call in some]}


def _call(text_arguments: bool, call_id: str, value: str = _VALUE) -> ChatMessage:
    arguments = {_KEY: value}
    function = {"name": _TOOL, "arguments": orjson.dumps(arguments).decode() if text_arguments else arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def _result(call_id: str) -> ChatMessage:
    return {"role": "tool", "tool_call_id": call_id, "name": _TOOL, "content": _RESULT}
