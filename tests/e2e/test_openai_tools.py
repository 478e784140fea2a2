"""Tools through the official OpenAI client: wanted calls of the default model, and unasked calls of one that speaks
written lines."""

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import openai
import pytest
from openai import OpenAI, pydantic_function_tool
from openai.lib.streaming.chat import (
    ContentDeltaEvent,
    FunctionToolCallArgumentsDeltaEvent,
    FunctionToolCallArgumentsDoneEvent,
)
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionMessage,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
    ChatCompletionNamedToolChoiceParam,
    ChatCompletionToolMessageParam,
)
from pydantic import BaseModel, Field

from tests.e2e.process import ServerProcess
from tests.scripted import Lines, hermes_call, make_scripted_llama


class Weather(BaseModel):
    """Get weather for a city."""

    city: Annotated[str, Field(max_length=20)]


class Unit(StrEnum):
    celsius = "celsius"
    fahrenheit = "fahrenheit"


class Conversion(BaseModel):
    """Convert a temperature."""

    degrees: Annotated[int, Field(ge=-60, le=60)]
    to: Unit


WEATHER = pydantic_function_tool(Weather, name="get_weather")
BOTH = [WEATHER, pydantic_function_tool(Conversion, name="convert")]
NAMED: ChatCompletionNamedToolChoiceParam = {"type": "function", "function": {"name": "get_weather"}}
ONE_CITY: ChatCompletionMessageParam = {"role": "user", "content": "What's the weather in Paris?"}
TWO_CITIES: ChatCompletionMessageParam = {"role": "user", "content": "What's the weather in Paris and in Rome?"}


def say(client: OpenAI, *messages: object, **fields: object) -> ChatCompletion:
    """A whole greedy reply."""
    settings = {"model": "default", "messages": messages, "max_tokens": 64, "temperature": 0} | fields
    reply = client.chat.completions.create(**settings)  # type: ignore[call-overload]
    assert isinstance(reply, ChatCompletion)
    return reply


def calls_of(message: ChatCompletionMessage) -> list[ChatCompletionMessageFunctionToolCall]:
    calls = message.tool_calls or []
    assert len({call.id for call in calls}) == len(calls)
    return [call for call in calls if isinstance(call, ChatCompletionMessageFunctionToolCall)]


def carried_out(call: ChatCompletionMessageFunctionToolCall, weather: str) -> ChatCompletionToolMessageParam:
    """What a program answers to a call of get_weather."""
    assert call.function.name == "get_weather"
    city = Weather.model_validate_json(call.function.arguments).city
    return {"role": "tool", "tool_call_id": call.id, "content": f"{city}: {weather}"}


@pytest.mark.model
@pytest.mark.long_prompts
@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_tool_loop_of_two_turns(default_client: OpenAI, choice: str | ChatCompletionNamedToolChoiceParam) -> None:
    first = say(default_client, ONE_CITY, tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
    (asked,) = first.choices
    (call,) = calls_of(asked.message)
    assert (asked.finish_reason, asked.message.content) == ("tool_calls", None)
    texts = set()
    for weather in ("Sunny, 22C", "Snow, -5C"):
        turns = (ONE_CITY, asked.message, carried_out(call, weather))
        (answer,) = say(default_client, *turns, tools=[WEATHER], tool_choice="none", max_tokens=20).choices
        assert answer.finish_reason in ("stop", "length")
        assert not answer.message.tool_calls
        texts.add(answer.message.content)
    assert len(texts) == 2, "what the tool said made no difference"


@pytest.mark.model
@pytest.mark.long_prompts
def test_parallel_calls_are_answered_in_parallel(default_client: OpenAI) -> None:
    (asked,) = say(default_client, TWO_CITIES, tools=[WEATHER], tool_choice="required").choices
    calls = calls_of(asked.message)
    assert len(calls) == 2
    results = [carried_out(call, "Sunny") for call in calls]
    (answer,) = say(default_client, TWO_CITIES, asked.message, *results, tool_choice="none", max_tokens=16).choices
    assert answer.message.content


@pytest.mark.model
@pytest.mark.long_prompts
def test_the_clients_own_accumulator_builds_streamed_calls(default_client: OpenAI) -> None:
    whole = calls_of(say(default_client, TWO_CITIES, tools=BOTH, tool_choice="required").choices[0].message)
    with default_client.chat.completions.stream(
        model="default", messages=[TWO_CITIES], tools=BOTH, tool_choice="required", max_tokens=64, temperature=0
    ) as stream:
        events = list(stream)
        (choice,) = stream.get_final_completion().choices
    streamed = choice.message.tool_calls or []
    assert [call.function.parsed_arguments for call in streamed] == [Weather(city="Paris"), Weather(city="Rome")]
    assert [call.function.arguments for call in streamed] == [call.function.arguments for call in whole]
    pieces = [event for event in events if isinstance(event, FunctionToolCallArgumentsDeltaEvent)]
    assert (pieces[0].name, pieces[0].arguments_delta) == ("get_weather", "")
    assert len(pieces) > 6
    done = [event.index for event in events if isinstance(event, FunctionToolCallArgumentsDoneEvent)]
    assert (done, choice.finish_reason) == ([0, 1], "tool_calls")


@pytest.mark.model
@pytest.mark.long_prompts
def test_arguments_follow_their_schema_whatever_chance_says(default_client: OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "convert"}}
    reply = say(default_client, ONE_CITY, tools=BOTH, tool_choice=choice, temperature=1.5, seed=5, n=4)
    for each in reply.choices:
        (call,) = calls_of(each.message)
        assert call.function.name == "convert"
        assert Conversion.model_validate_json(call.function.arguments)


@pytest.mark.model
@pytest.mark.long_prompts
def test_a_call_that_is_cut_off_is_no_call(default_client: OpenAI) -> None:
    (cut,) = say(default_client, ONE_CITY, tools=[WEATHER], tool_choice="required", max_tokens=12).choices
    assert (cut.finish_reason, cut.message.tool_calls) == ("length", None)
    assert cut.message.content


@pytest.mark.model
@pytest.mark.long_prompts
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "convert"}}}, "convert"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"propertyNames": {}}}}],
                "tool_choice": "required",
            },
            "propertyNames",
        ),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "custom"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
    ],
    ids=["unknown function", "keyword", "kind of tool", "no tools"],
)
def test_what_cannot_be_honoured_is_named(default_client: OpenAI, fields: dict[str, object], named: str) -> None:
    with pytest.raises(openai.BadRequestError, match=named):
        say(default_client, ONE_CITY, **({"tools": [WEATHER]} | fields))


BEFORE, AFTER = "Let me look at two of them.", "One moment, please."
CALLS: list[tuple[str, dict[str, object]]] = [
    ("get_weather", {"city": "Paris"}),
    ("convert", {"degrees": 22, "to": "fahrenheit"}),
]
LINES = Lines(
    call=f"{BEFORE}\n" + "\n".join(hermes_call(*call) for call in CALLS) + f"\n{AFTER}",
    answer="It is sunny in Paris today.",
    plain="A call begins with <tool_call> and a line break.",
)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    model: Path = make_scripted_llama(tmp_path_factory.mktemp("scripted"), LINES)
    with (
        ServerProcess(str(model), "--tool-call-parser", "hermes") as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client,
    ):
        yield client


def test_unasked_calls_stand_between_texts_and_are_answered(scripted: OpenAI) -> None:
    (asked,) = say(scripted, ONE_CITY, tools=BOTH, max_tokens=500).choices
    calls = calls_of(asked.message)
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == CALLS
    assert asked.finish_reason == "tool_calls"
    assert (asked.message.content or "").split("\n\n") == [BEFORE, AFTER]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "22C"} for call in calls]
    (answer,) = say(scripted, ONE_CITY, asked.message, *results, tools=BOTH, max_tokens=500).choices
    assert (answer.message.content, answer.finish_reason) == (LINES.answer, "stop")


def test_unasked_calls_are_streamed_in_pieces_between_the_texts(scripted: OpenAI) -> None:
    (whole,) = say(scripted, ONE_CITY, tools=BOTH, max_tokens=500).choices
    with scripted.chat.completions.stream(model="default", messages=[ONE_CITY], tools=BOTH, max_tokens=500) as stream:
        order = [
            "text" if isinstance(event, ContentDeltaEvent) else f"call {event.index}"
            for event in stream
            if isinstance(event, ContentDeltaEvent | FunctionToolCallArgumentsDeltaEvent)
        ]
        (streamed,) = stream.get_final_completion().choices
    assert list(dict.fromkeys(order)) == ["text", "call 0", "call 1"]
    assert order[-1] == "text"
    assert order.count("call 1") > 3
    assert streamed.message.content == whole.message.content
    assert [call.function.parsed_arguments for call in streamed.message.tool_calls or []] == [
        Weather(city="Paris"),
        Conversion(degrees=22, to=Unit.fahrenheit),
    ]
    assert streamed.finish_reason == "tool_calls"


def test_a_marker_is_text_where_no_tool_is_on_offer(scripted: OpenAI) -> None:
    (plain,) = say(scripted, ONE_CITY, max_tokens=500).choices
    assert (plain.message.content, plain.message.tool_calls) == (LINES.plain, None)
    (unlooked,) = say(scripted, ONE_CITY, tools=BOTH, tool_choice="none", max_tokens=500).choices
    assert (unlooked.message.content, unlooked.message.tool_calls) == (LINES.plain, None)
