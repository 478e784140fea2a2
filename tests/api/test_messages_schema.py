"""Bodies of /v1/messages: which chat they are, and which are refused with which words."""

from collections.abc import Sequence
from typing import cast

import orjson
import pytest

from api.body import parse
from api.errors import ApiError
from api.schema.chat import ChatBody
from api.schema.messages import CountBody, MessagesBody
from api.schema.tools import ToolChoice

Json = dict[str, object]

HI = {"role": "user", "content": "Hi"}
TOOL = {"name": "get_weather", "description": "Weather.", "input_schema": {"type": "object"}}
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"a": 1}}]}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "Sunny"}


def body_of(**fields: object) -> MessagesBody:
    return parse(MessagesBody, orjson.dumps({"model": "m", "max_tokens": 9, "messages": [HI]} | fields))


def chat_of(**fields: object) -> ChatBody:
    return body_of(**fields).as_chat(temperature=0.7, top_p=0.9)


def rendered(messages: Sequence[object], **fields: object) -> list[Json]:
    """The messages as a chat template gets them."""
    return [message.for_template() for message in chat_of(messages=messages, **fields).messages]


def refusal(**fields: object) -> str:
    with pytest.raises(ApiError) as caught:
        chat_of(**fields)
    assert caught.value.status == 400
    return caught.value.message


def said(role: str, *blocks: object) -> Json:
    return {"role": role, "content": list(blocks)}


def text(words: str, **more: object) -> Json:
    return {"type": "text", "text": words, **more}


def test_what_a_request_leaves_open() -> None:
    chat = chat_of()
    assert (chat.temperature, chat.top_p, chat.top_k, chat.max_tokens, chat.stop) == (0.7, 0.9, 0, 9, [])
    assert (chat.tools, chat.tool_choice, chat.parallel_tool_calls) == ([], ToolChoice("auto"), True)
    assert (chat.stream, chat.response_format, chat.template_kwargs, chat.continues) == (False, None, {}, False)


def test_every_setting_has_its_place_in_the_chat() -> None:
    chat = chat_of(temperature=0.1, top_p=0.2, top_k=3, stop_sequences=["a", "b"], stream=True, max_tokens=32000)
    assert (chat.temperature, chat.top_p, chat.top_k, chat.stop) == (0.1, 0.2, 3, ["a", "b"])
    assert (chat.stream, chat.max_tokens) == (True, 32000)


def test_a_temperature_of_zero_is_not_the_default() -> None:
    assert (chat_of(temperature=0, top_p=0).temperature, chat_of(top_p=0).top_p) == (0, 0)


def test_hints_are_taken_and_left() -> None:
    hints: Json = {
        "metadata": {"user_id": "{}"},
        "service_tier": "auto",
        "cache_control": {"type": "ephemeral"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "thinking": {"type": "adaptive"},
        "inference_geo": "us",
        "speed": "fast",
        "diagnostics": None,
    }
    assert chat_of(**hints) == chat_of()


@pytest.mark.parametrize("system", ["Be brief.\n\nBe kind.", [text("Be brief."), text("Be kind.", cache_control={})]])
def test_the_system_prompt_is_a_string_or_blocks(system: object) -> None:
    assert rendered([HI], system=system) == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.parametrize("system", ["", [], None])
def test_an_empty_system_prompt_is_none(system: object) -> None:
    assert rendered([HI], system=system) == [{"role": "user", "content": "Hi"}]


def test_neighbours_of_one_role_are_one_turn() -> None:
    messages = [HI, {"role": "user", "content": "there"}, {"role": "assistant", "content": "Yes?"}, HI]
    assert [(m["role"], m["content"]) for m in rendered(messages)] == [
        ("user", "Hi\n\nthere"),
        ("assistant", "Yes?"),
        ("user", "Hi"),
    ]


def test_messages_of_the_system_before_anybody_speaks_join_the_system_prompt() -> None:
    messages = [{"role": "system", "content": "Be kind."}, HI]
    assert rendered(messages, system="Be brief.")[0] == {"role": "system", "content": "Be brief.\n\nBe kind."}


def test_messages_of_the_system_between_turns_join_what_the_user_says() -> None:
    messages = [HI, {"role": "system", "content": [text("Agents: none.")]}, CALLED, said("user", RESULT, text("Go on"))]
    assert [(m["role"], m["content"]) for m in rendered(messages, system="Be brief.")] == [
        ("system", "Be brief."),
        ("user", "Hi\n\n<system-reminder>\nAgents: none.\n</system-reminder>"),
        ("assistant", ""),
        ("tool", "Sunny"),
        ("user", "Go on"),
    ]


def test_calls_and_results_are_those_of_a_chat() -> None:
    function = {"name": "get_weather", "arguments": {"a": 1}}
    assert rendered([HI, CALLED, said("user", RESULT)])[1:] == [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "t1", "function": function}]},
        {"role": "tool", "tool_call_id": "t1", "content": "Sunny"},
    ]


def test_parallel_results_come_in_their_order_and_before_the_text() -> None:
    calls = [{"type": "tool_use", "id": f"t{n}", "name": "f", "input": {}} for n in (1, 2)]
    results = [{"type": "tool_result", "tool_use_id": f"t{n}", "content": f"r{n}"} for n in (2, 1)]
    turn = rendered([HI, said("assistant", text("Let me see."), *calls), said("user", text("Well?"), *results)])
    assert turn[1]["content"] == "Let me see."
    assert len(cast("list[object]", turn[1]["tool_calls"])) == 2
    assert [(m["role"], m.get("tool_call_id"), m["content"]) for m in turn[2:]] == [
        ("tool", "t2", "r2"),
        ("tool", "t1", "r1"),
        ("user", None, "Well?"),
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"content": "Sunny"}, "Sunny"),
        ({"content": [text("Sunny"), text("22C", cache_control={"type": "ephemeral"})]}, "Sunny\n\n22C"),
        ({"content": "No such city", "is_error": True}, "Error: No such city"),
        ({"content": "Sunny", "is_error": False}, "Sunny"),
        ({"is_error": True}, "Error"),
        ({"content": []}, ""),
        ({}, ""),
    ],
)
def test_what_a_tool_returned_is_text_and_an_error_says_so(fields: Json, expected: str) -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", **fields}
    assert rendered([HI, CALLED, said("user", result)])[-1] == {
        "role": "tool",
        "tool_call_id": "t1",
        "content": expected,
    }


def test_earlier_thinking_is_given_back_and_what_is_redacted_is_dropped() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "redacted_thinking", "data": "y"},
        text("Yes."),
    ]
    assert rendered([HI, said("assistant", *blocks), HI])[1] == {
        "role": "assistant",
        "content": "Yes.",
        "reasoning_content": "Hm.",
    }


def test_documents_of_text_and_search_results_are_read() -> None:
    document = {
        "type": "document",
        "title": "A title",
        "context": "A context",
        "source": {"type": "text", "media_type": "text/plain", "data": "The text."},
        "citations": {"enabled": False},
    }
    in_blocks = {"type": "document", "source": {"type": "content", "content": [text("One."), text("Two.")]}}
    found = {"type": "search_result", "source": "a.example", "title": "T", "content": [text("Found.")]}
    (message,) = rendered([said("user", document, in_blocks, found, text("Well?"))])
    paragraphs = "A title", "A context", "The text.", "One.", "Two.", "a.example", "T", "Found.", "Well?"
    assert message["content"] == "\n\n".join(paragraphs)


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, ToolChoice("auto"), True),
        ({"type": "any"}, ToolChoice("required"), True),
        ({"type": "tool", "name": "get_weather"}, ToolChoice("required", frozenset({"get_weather"})), True),
        ({"type": "none"}, ToolChoice("none"), True),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice("required"), False),
    ],
)
def test_tool_choices(choice: Json, expected: ToolChoice, parallel: bool) -> None:
    chat = chat_of(tools=[TOOL], tool_choice=choice)
    assert (chat.tool_choice, chat.parallel_tool_calls) == (expected, parallel)


def test_tools_become_functions_and_their_examples_are_told() -> None:
    hints = {"type": "custom", "cache_control": {}, "strict": True, "eager_input_streaming": True}
    (tool,) = chat_of(tools=[TOOL | hints | {"input_examples": [{"city": "Paris"}]}]).tools
    assert tool.model_dump(exclude_none=True) == {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather.",
            "parameters": {"type": "object", "examples": [{"city": "Paris"}]},
        },
    }


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ({"type": "enabled", "budget_tokens": 31999}, {"enable_thinking": True}),
        ({"type": "disabled"}, {"enable_thinking": False}),
        ({"type": "adaptive"}, {}),
        (None, {}),
    ],
)
def test_thinking_is_for_the_template_to_switch(thinking: object, expected: Json) -> None:
    assert chat_of(thinking=thinking).template_kwargs == expected


def test_effort_is_handed_to_the_template() -> None:
    assert chat_of(output_config={"effort": "high"}).template_kwargs == {"reasoning_effort": "high"}


@pytest.mark.parametrize("field", [{"output_config": None}, {"output_format": None}])
def test_an_output_format_is_enforced_under_either_name(field: Json) -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    answer: Json = {"type": "json_schema", "schema": schema}
    chat = chat_of(**{name: {"format": answer} if name == "output_config" else answer for name in field})
    assert chat.response_format
    assert chat.response_format.json_schema
    assert chat.response_format.json_schema.schema_ == schema


def test_a_last_message_of_the_assistant_is_the_beginning_of_the_answer() -> None:
    chat = chat_of(messages=[HI, {"role": "assistant", "content": "The answer is ("}])
    assert chat.continues
    assert chat.messages[-1].content == "The answer is ("


@pytest.mark.parametrize("empty", ["", []])
def test_an_empty_last_message_of_the_assistant_begins_nothing(empty: object) -> None:
    chat = chat_of(messages=[HI, {"role": "assistant", "content": empty}])
    assert not chat.continues
    assert [message.role for message in chat.messages] == ["user"]


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
SERVER_TOOL = {"type": "web_search_20250305", "name": "web_search"}
BEGUN = [HI, {"role": "assistant", "content": "{"}]
FORMAT = {"format": {"type": "json_schema", "schema": {}}}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": [said("user", IMAGE)]}, "messages.0.content.0: the model is text-only, it cannot take images"),
        (
            {"messages": [HI, CALLED, said("user", RESULT | {"content": [IMAGE]})]},
            "messages.2.content.0.tool_result.content.0: the model is text-only",
        ),
        (
            {"messages": [said("user", {"type": "document", "source": {"type": "base64", "data": ""}})]},
            "messages.0.content.0.document.source: documents of source type 'base64' are not supported",
        ),
        ({"messages": [said("user", {"type": "container_upload"})]}, "blocks of type 'container_upload' are not"),
        ({"messages": [said("user", {"text": "x"})]}, "messages.0.content.0: must be an object with a type"),
        ({"messages": [said("user", text(""))]}, "messages.0.content.0.text.text: text content blocks must be non-emp"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0: all messages must have non-empty content"),
        ({"messages": [said("assistant"), HI]}, "messages.0: all messages must have non-empty content"),
        ({"messages": [said("assistant")]}, "messages: at least one message must have content"),
        ({"messages": []}, "messages: List should have at least 1 item"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: "),
        ({"messages": [said("user", *cast("list[object]", CALLED["content"]))]}, "`tool_use` blocks can only be in"),
        ({"messages": [said("assistant", RESULT)]}, "messages.0.content.0: `tool_result` blocks can only be in `user`"),
        ({"messages": [HI, CALLED]}, "messages.1: `tool_use` ids were found without `tool_result` blocks immediately"),
        ({"messages": [HI, CALLED, HI]}, "messages.1: `tool_use` ids were found without `tool_result` blocks immediat"),
        ({"messages": [said("user", RESULT)]}, "messages.0: unexpected `tool_use_id` found in `tool_result` blocks"),
        ({"messages": [HI, CALLED, said("user", RESULT, RESULT)]}, "messages.2: unexpected `tool_use_id` found"),
        ({"messages": [HI, {"role": "assistant", "content": "So "}]}, "messages: final assistant content cannot end w"),
        ({"messages": BEGUN, "output_config": FORMAT}, "messages: an answer that is begun by the last message can be"),
        ({"messages": BEGUN, "tools": [TOOL], "tool_choice": {"type": "any"}}, "messages: an answer that is begun"),
        ({"tools": [SERVER_TOOL]}, "tools.0.type: tools of type 'web_search_20250305' are not supported"),
        ({"tools": [{"name": "f"}]}, "tools.0.input_schema: Field required"),
        ({"tools": [TOOL, TOOL]}, "tools.1.name: Tool names must be unique."),
        ({"tool_choice": {"type": "any"}}, "tool_choice: needs tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name: Tool 'g' not found"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name: belongs to the type tool"),
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"model": None}, "model: Field required"),
        ({"temperature": 1.5}, "temperature: Input should be less than or equal to 1"),
        ({"top_p": -0.1}, "top_p: Input should be greater than or equal to 0"),
        ({"mcp_servers": []}, "mcp_servers: is not supported yet"),
        ({"container": "c"}, "container: is not supported yet"),
        ({"colour": "red"}, "colour: is not a known field"),
        ({"output_config": FORMAT, "output_format": FORMAT["format"]}, "output_format: is the older name of"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(fields: Json, words: str) -> None:
    assert words in refusal(**fields)


def test_a_count_needs_no_limit() -> None:
    body = parse(CountBody, orjson.dumps({"model": "m", "messages": [HI]}))
    assert body.as_chat(temperature=0, top_p=1).max_tokens is None
