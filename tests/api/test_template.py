"""Chat templates and tools: what a template can do is found out by trying, and what it cannot is done for it."""

import json
from collections.abc import Callable, Mapping, Sequence

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from api.errors import ApiError
from api.text.abilities import Abilities
from api.text.conversation import ChatMessage, Conversation, ToolObject
from api.text.template import ChatTemplate

PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
OFFERS = (
    "{% for t in tools or [] %}{{ t.function.name }}({{ t.function.parameters.properties | list | join }})\n"
    "{% endfor %}"
)
CALLS = (
    "{% for m in messages %}[{{ m.role }} {{ m.name }} {{ m.tool_call_id }}] {{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.id }}:{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %};"
    "{% endfor %}"
)
WHOLE = OFFERS + CALLS
TEXT_ARGUMENTS = WHOLE.replace("{{ c.function.arguments | tojson }}", "{{ '' + c.function.arguments }}")
ONE_CALL = WHOLE.replace("m.tool_calls %}", "(m.tool_calls or [])[:1] %}")
MISTRAL = (
    "{% for m in messages %}{% for c in m.tool_calls %}"
    "{% if c.id | length != 9 %}{{ raise_exception('ids have 9 characters') }}{% endif %}{% endfor %}{% endfor %}"
) + WHOLE
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + PLAIN

WEATHER: ToolObject = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
USER: ChatMessage = {"role": "user", "content": "Rain?"}


def call(call_id: str, city: str) -> dict[str, object]:
    return {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": {"city": city}}}


def calling(*calls: Mapping[str, object], content: str = "") -> ChatMessage:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(call_id: str, content: str) -> ChatMessage:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


TWO_CALLS = [USER, calling(call("c1", "Rome"), call("c2", "Oslo")), result("c2", "snow"), result("c1", "sun")]


def template(source: str) -> ChatTemplate:
    def render(messages: Sequence[ChatMessage], tools: Sequence[ToolObject], kwargs: Mapping[str, object]) -> str:
        jinja: Callable[..., object] = render_jinja_template
        result = jinja([list(messages)], tools=list(tools) or None, chat_template=source, **kwargs)
        assert isinstance(result, tuple)
        return str(result[0][0])

    return ChatTemplate(source, render)


def rendered(source: str, *messages: ChatMessage, tools: Sequence[ToolObject] = ()) -> str:
    return template(source).render(Conversation(messages, tools))


@pytest.mark.parametrize(
    ("source", "can"),
    [
        (PLAIN, "system"),
        (NO_SYSTEM, ""),
        (OFFERS + PLAIN, "system offers results"),
        (CALLS, "system calls parallel_calls results"),
        (WHOLE, "system offers calls parallel_calls results"),
        (TEXT_ARGUMENTS, "system offers calls parallel_calls text_arguments results"),
        (ONE_CALL, "system offers calls results"),
        (MISTRAL, "system offers calls parallel_calls short_ids results"),
        (
            TEXT_ARGUMENTS.replace("'' + c.function.arguments", "('' + c.function.arguments) | tojson"),
            "system offers results",
        ),
        ("{{ 1 / 0 }}", ""),
    ],
)
def test_what_a_template_can_do_is_found_out_by_trying(source: str, can: str) -> None:
    abilities = template(source).abilities
    assert " ".join(name for name in Abilities.__dataclass_fields__ if getattr(abilities, name)) == can


def test_a_template_that_knows_tools_is_given_them_as_they_are() -> None:
    text = rendered(WHOLE, USER, calling(call("c1", "Rome")), result("c1", "sun"), tools=[WEATHER])
    assert text == ('weather(city)\n[user  ] Rain?;[assistant  ] c1:weather{"city": "Rome"};[tool weather c1] sun;')


def test_a_template_that_wants_arguments_as_text_is_given_text() -> None:
    assert 'c1:weather{"city": "Rome"};' in rendered(TEXT_ARGUMENTS, USER, calling(call("c1", "Rome")))


def test_a_name_that_came_with_a_result_is_kept() -> None:
    named = {**result("c1", "sun"), "name": "own"}
    assert "[tool own c1] sun" in rendered(WHOLE, USER, calling(call("c1", "Rome")), named)
    assert "[tool  c9] sun" in rendered(WHOLE, USER, calling(call("c1", "Rome")), result("c9", "sun"))


def test_ids_are_made_short_for_mistral_and_still_tell_which_call_is_answered() -> None:
    text = rendered(MISTRAL, *TWO_CALLS, calling(call("abcdefgh9", "Bern")), result("abcdefgh9", "fog"))
    first, second = (
        part.rpartition(";")[2].rpartition("}")[2].rpartition(" ")[2] for part in text.split(":weather")[:2]
    )
    assert f"[tool weather {first}] sun" in text
    assert f"[tool weather {second}] snow" in text
    assert len({first, second}) == 2
    assert "[tool weather abcdefgh9] fog" in text


def test_calls_of_one_message_go_one_by_one_to_a_template_that_writes_only_the_first() -> None:
    messages = [*TWO_CALLS, result("c9", "lost"), USER]
    messages[1] = {**messages[1], "content": "Let me see."}
    assert rendered(ONE_CALL, *messages) == (
        '[user  ] Rain?;[assistant  ] Let me see.c1:weather{"city": "Rome"};[tool weather c1] sun;'
        '[assistant  ] c2:weather{"city": "Oslo"};[tool weather c2] snow;[tool  c9] lost;[user  ] Rain?;'
    )


def test_a_template_without_tools_tells_of_them_in_the_system_message() -> None:
    text = rendered(PLAIN, {"role": "system", "content": "Be kind."}, USER, tools=[WEATHER])
    assert text.startswith("[system] Be kind.\n\n# Tools\n")
    assert f"<tools>\n{json.dumps(WEATHER)}\n</tools>" in text
    assert "<tool_call>" in text
    assert rendered(PLAIN, USER, tools=[WEATHER]).startswith("[system] # Tools\n")


def test_a_template_without_a_system_role_tells_of_tools_before_the_first_question() -> None:
    text = rendered(NO_SYSTEM, USER, tools=[WEATHER])
    assert text.startswith("[user] # Tools\n")
    assert text.endswith("\n\nRain?\n")


def test_a_template_without_calls_has_them_and_their_results_as_text() -> None:
    assert rendered(PLAIN, *TWO_CALLS, calling(call("c3", "Bern"), content="Once more.")) == (
        "[user] Rain?\n"
        '[assistant] <tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
        "[user] <tool_response>\nsnow\n</tool_response>\n<tool_response>\nsun\n</tool_response>\n"
        '[assistant] Once more.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>\n'
    )


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        (
            "<｜tool▁calls▁begin｜>",
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜>'
            "<｜tool▁calls▁end｜>",
        ),
        ("respond only with <|tool_call|>", '<|tool_call|>[{"name": "weather", "arguments": {"city": "Rome"}}]'),
        ("List of tools: ", "<|tool_call_start|>[weather(city='Rome')]<|tool_call_end|>"),
    ],
)
def test_calls_are_written_as_the_models_family_writes_them(marker: str, expected: str) -> None:
    source = "{# " + marker + " #}" + PLAIN
    assert f"[assistant] {expected}\n" in rendered(source, USER, calling(call("c1", "Rome")))


def test_offers_ask_for_calls_as_deepseek_writes_them_where_the_template_is_deepseeks() -> None:
    offer = rendered("{# <｜tool▁calls▁begin｜> #}" + PLAIN, USER, tools=[WEATHER])
    assert "<｜tool▁call▁begin｜>" in offer
    assert "<tool_call>" not in offer


def test_a_refusal_is_told_in_the_templates_words_and_not_at_length() -> None:
    with pytest.raises(ApiError, match="no system role"):
        rendered(NO_SYSTEM, {"role": "system", "content": "Be kind."}, USER)
    with pytest.raises(ApiError) as caught:
        rendered("{{ raise_exception(messages[0].content) }}", {"role": "user", "content": "x" * 10_000})
    assert len(caught.value.message) < 2_000
