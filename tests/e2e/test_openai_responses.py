"""The Responses API through the official OpenAI client, on the default model."""

import json
from typing import Annotated

import openai
import pytest
from openai import OpenAI
from openai.types.responses import FunctionToolParam, Response, ResponseFunctionToolCall, ToolChoiceFunctionParam
from pydantic import BaseModel, Field

pytestmark = [pytest.mark.model, pytest.mark.long_prompts]

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "Get weather for a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
NAMED: ToolChoiceFunctionParam = {"type": "function", "name": "get_weather"}
QUESTION = "What's the weather in Paris?"
CAPITAL = "What is the capital of France?"
STORY = "Tell me a story"


class Colours(BaseModel):
    """Three of them."""

    colours: Annotated[list[Annotated[str, Field(pattern="^[a-z]{3,8}$")]], Field(min_length=3, max_length=3)]


def say(client: OpenAI, said: object, **fields: object) -> Response:
    settings = {"model": "default", "input": said, "max_output_tokens": 16, "temperature": 0} | fields
    response = client.responses.create(**settings)  # type: ignore[call-overload]
    assert isinstance(response, Response)
    return response


def test_a_stream_builds_what_a_whole_response_says(default_client: OpenAI) -> None:
    whole = say(default_client, CAPITAL)
    assert whole.status == "completed"
    with default_client.responses.stream(model="default", input=CAPITAL, max_output_tokens=16, temperature=0) as stream:
        events = list(stream)
        final = stream.get_final_response()
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text == whole.output_text
    assert len(deltas) > 4
    assert final.usage
    assert whole.usage
    assert final.usage.output_tokens == whole.usage.output_tokens == len(deltas) + 1, "with the one that ends it"
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")


def test_a_response_that_is_cut_off_is_incomplete(default_client: OpenAI) -> None:
    whole = say(default_client, STORY, max_output_tokens=5)
    assert whole.status == "incomplete"
    assert whole.incomplete_details
    assert whole.incomplete_details.reason == "max_output_tokens"
    events = list(
        default_client.responses.create(model="default", input=STORY, max_output_tokens=5, temperature=0, stream=True)
    )
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.output_text == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_response_goes_on_from_the_one_before(default_client: OpenAI) -> None:
    first = say(default_client, "My name is Alice.")
    second = say(default_client, "What's my name?", previous_response_id=first.id)
    in_full = say(
        default_client,
        [
            {"role": "user", "content": "My name is Alice."},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "What's my name?"},
        ],
    )
    assert second.output_text == in_full.output_text != say(default_client, "What's my name?").output_text
    assert default_client.responses.retrieve(second.id).output_text == second.output_text
    default_client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        default_client.responses.retrieve(second.id)
    with pytest.raises(openai.BadRequestError, match=second.id):
        say(default_client, "And now?", previous_response_id=second.id)


def test_a_function_is_called_and_its_output_answered(default_client: OpenAI) -> None:
    first = say(default_client, QUESTION, tools=[WEATHER], tool_choice=NAMED, max_output_tokens=48)
    (call,) = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (first.status, call.status, call.name) == ("completed", "completed", "get_weather")
    assert list(json.loads(call.arguments)) == ["city"]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "Snow, -5C"}
    second = say(default_client, [output], previous_response_id=first.id)
    assert second.output_text
    said_again = [{"role": "user", "content": QUESTION}, call, output]
    assert say(default_client, said_again).output_text == second.output_text


def test_a_streamed_call_comes_in_pieces(default_client: OpenAI) -> None:
    with default_client.responses.stream(
        model="default",
        input=QUESTION,
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=48,
        temperature=0,
    ) as stream:
        pieces = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        (call,) = stream.get_final_response().output
    assert call.type == "function_call"
    assert "".join(pieces) == call.arguments
    assert len(pieces) > 3


def test_a_pydantic_model_is_the_form_of_the_text(default_client: OpenAI) -> None:
    whole = default_client.responses.parse(
        model="default", input="List 3 colors", text_format=Colours, max_output_tokens=48, temperature=0
    )
    assert whole.output_parsed
    with default_client.responses.stream(
        model="default", input="List 3 colors", text_format=Colours, max_output_tokens=48, temperature=0
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.output_parsed == whole.output_parsed
    assert len(deltas) > 8


def test_a_form_that_cannot_be_enforced_is_refused_by_its_keyword(default_client: OpenAI) -> None:
    wanted = {"type": "json_schema", "name": "set", "schema": {"type": "array", "uniqueItems": True}}
    with pytest.raises(openai.BadRequestError, match="uniqueItems"):
        say(default_client, "List 3 colors", text={"format": wanted})
    reply = say(default_client, "List 3 colors", text={"format": {"type": "json_object"}}, temperature=1)
    assert reply.output_text.startswith("{")
