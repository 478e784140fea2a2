"""Answers in a wanted form through the official OpenAI client, on the default model: pydantic models, schemas, JSON."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Annotated

import openai
import pytest
from openai import OpenAI
from openai.lib.streaming.chat import ContentDeltaEvent
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from pydantic import BaseModel, Field

pytestmark = [pytest.mark.model, pytest.mark.long_prompts]


class Mood(StrEnum):
    calm = "calm"
    busy = "busy"


class City(BaseModel):
    name: Annotated[str, Field(pattern="^[A-Z][a-z]{1,11}$")]
    mood: Mood


class Trip(BaseModel):
    """Nested, with a list, an enum and bounds."""

    cities: Annotated[list[City], Field(min_length=1, max_length=2)]
    days: Annotated[int, Field(ge=1, le=30)]
    guide: Annotated[str, Field(max_length=10)] | None


TRIP: ChatCompletionMessageParam = {"role": "user", "content": "Plan a trip to France."}
COLOURS: ChatCompletionMessageParam = {"role": "user", "content": "List 3 colors"}
FREE = ("The capital of France is", "Once upon a time, in a small village by the sea,", "1, 2, 3, 4,", "def add(a, b):")


def form(schema: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def say(client: OpenAI, **fields: object) -> ChatCompletion:
    settings = {"model": "default", "messages": [COLOURS], "max_tokens": 48, "temperature": 0} | fields
    reply = client.chat.completions.create(**settings)  # type: ignore[call-overload]
    assert isinstance(reply, ChatCompletion)
    return reply


def test_a_pydantic_model_is_the_form_of_a_whole_answer_and_of_a_streamed_one(default_client: OpenAI) -> None:
    whole = default_client.chat.completions.parse(
        model="default", messages=[TRIP], response_format=Trip, max_tokens=96, temperature=0
    )
    assert whole.choices[0].finish_reason == "stop"
    assert whole.choices[0].message.parsed
    with default_client.chat.completions.stream(
        model="default", messages=[TRIP], response_format=Trip, max_tokens=96, temperature=0
    ) as stream:
        pieces = [event.delta for event in stream if isinstance(event, ContentDeltaEvent) and event.delta]
        streamed = stream.get_final_completion()
    assert streamed.choices[0].message.parsed == whole.choices[0].message.parsed
    assert "".join(pieces) == streamed.choices[0].message.content == whole.choices[0].message.content
    assert len(pieces) > 10, "it is streamed while it is written"


def test_sampled_choices_are_all_of_the_form(default_client: OpenAI) -> None:
    reply = default_client.chat.completions.parse(
        model="default", messages=[TRIP], response_format=Trip, max_tokens=96, temperature=1.3, seed=2, n=3
    )
    assert [choice.finish_reason for choice in reply.choices] == ["stop"] * 3
    assert len({str(choice.message.parsed) for choice in reply.choices}) == 3
    assert all(choice.message.parsed for choice in reply.choices)


def test_any_json_object_is_an_object(default_client: OpenAI) -> None:
    (choice,) = say(default_client, response_format={"type": "json_object"}, temperature=1, seed=1).choices
    assert choice.finish_reason == "stop"
    assert isinstance(json.loads(choice.message.content or ""), dict)


def test_an_answer_that_is_cut_off_says_so(default_client: OpenAI) -> None:
    (choice,) = say(default_client, response_format=form(Trip.model_json_schema()), max_tokens=8).choices
    assert choice.finish_reason == "length"
    with pytest.raises(openai.LengthFinishReasonError):
        default_client.chat.completions.parse(
            model="default", messages=[TRIP], response_format=Trip, max_tokens=8, temperature=0
        )


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "properties": {"a": {"not": {"type": "null"}}}}, "not"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "string", "pattern": "(a"}, "pattern"),
        ({"type": "string", "format": "colour"}, "format"),
        ({"$ref": "https://example.com/schema"}, r"\$ref"),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_by_its_keyword(
    default_client: OpenAI, schema: dict[str, object], keyword: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=keyword) as caught:
        say(default_client, response_format=form(schema))
    assert str(caught.value.param).startswith("response_format")


def free_texts(client: OpenAI) -> list[str]:
    """What the model says without any form, to all that is asked of it at once."""
    with ThreadPoolExecutor(len(FREE)) as pool:
        return list(pool.map(lambda prompt: free_text(client, prompt), FREE))


def free_text(client: OpenAI, prompt: str) -> str:
    return client.completions.create(model="default", prompt=prompt, max_tokens=20, temperature=0).choices[0].text


def constrained(client: OpenAI, seeds: Sequence[int]) -> list[ChatCompletion]:
    wanted = form(Trip.model_json_schema())
    with ThreadPoolExecutor(len(seeds)) as pool:
        ask = [
            pool.submit(
                say, client, messages=[TRIP], response_format=wanted, max_tokens=96, temperature=seed, seed=seed
            )
            for seed in seeds
        ]
        return [each.result() for each in ask]


def test_free_rows_beside_constrained_ones_say_what_they_say_alone(default_client: OpenAI) -> None:
    alone = [free_text(default_client, prompt) for prompt in FREE]
    with ThreadPoolExecutor() as pool:
        beside = pool.submit(constrained, default_client, range(2))
        company = pool.submit(free_texts, default_client)
        assert company.result() == alone
        for reply in beside.result():
            assert Trip.model_validate_json(reply.choices[0].message.content or "")
