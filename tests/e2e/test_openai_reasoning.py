"""Thinking through the official OpenAI client, against models that speak written lines: marked by the model itself, or
opened by its template."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage, ChatCompletionMessageParam

from tests.e2e.process import ServerProcess
from tests.scripted import Lines, hermes_call, make_scripted_llama

THOUGHT = "The user asks about seventeen times twenty-three, which makes 391."
CALLING = "A tool knows the weather."
LINES = Lines(
    call=f"<think>\n{CALLING}\n</think>\n\n{hermes_call('get_weather', {'city': 'Paris'})}",
    answer="<think>\nIt said so.\n</think>\n\nSunny in Paris.",
    plain=f"<think>\n{THOUGHT}\n</think>\n\nIt is 391.",
)
QUESTION: ChatCompletionMessageParam = {"role": "user", "content": "What is 17 × 23?"}
WEATHER = {"type": "function", "function": {"name": "get_weather"}}


def open_thinking(model: Path) -> None:
    """Have the template open the thinking, as Qwen3's newer ones do: the mark takes the place of the cue."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = model / name
        file.write_text(file.read_text(encoding="utf-8").replace("<|plain|>", "<think>"), encoding="utf-8")


@contextmanager
def client_of(model: Path, *flags: str) -> Iterator[OpenAI]:
    with (
        ServerProcess(str(model), *flags) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client,
    ):
        yield client


@pytest.fixture(scope="module", params=["the model opens it", "the template opens it"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    place = tmp_path_factory.mktemp("thinking")
    if request.param == "the model opens it":
        model = make_scripted_llama(place, LINES)
        parser = "qwen3"
    else:
        model = make_scripted_llama(place, Lines(LINES.call, LINES.answer, LINES.plain.removeprefix("<think>")))
        open_thinking(model)
        parser = "auto"
    with client_of(model, "--reasoning-parser", parser, "--tool-call-parser", "hermes") as made:
        yield made


def say(client: OpenAI, *messages: object, **fields: object) -> ChatCompletion:
    settings = {"model": "default", "messages": messages, "max_tokens": 300} | fields
    reply = client.chat.completions.create(**settings)  # type: ignore[call-overload]
    assert isinstance(reply, ChatCompletion)
    return reply


def stream(client: OpenAI, **fields: object) -> list[ChatCompletionChunk]:
    settings = {"model": "default", "messages": [QUESTION], "max_tokens": 300, "stream": True} | fields
    return list(client.chat.completions.create(**settings))  # type: ignore[call-overload]


def thinking_of(message: ChatCompletionMessage) -> str | None:
    """Both names hold the same."""
    thinking: str | None = message.reasoning  # type: ignore[attr-defined]
    assert message.reasoning_content == thinking  # type: ignore[attr-defined]
    return thinking


def test_thinking_stands_beside_the_content(client: OpenAI) -> None:
    reply = say(client, QUESTION)
    (choice,) = reply.choices
    assert (thinking_of(choice.message), choice.message.content) == (THOUGHT, "It is 391.")
    assert choice.finish_reason == "stop"
    assert reply.usage
    assert reply.usage.completion_tokens_details
    thought = reply.usage.completion_tokens_details.reasoning_tokens
    assert thought
    assert len(THOUGHT) / 10 < thought < reply.usage.completion_tokens - 3


def test_thinking_is_streamed_first_in_chunks_of_its_own(client: OpenAI) -> None:
    chunks = stream(client, stream_options={"include_usage": True})
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    thought = [delta.reasoning for delta in deltas]  # type: ignore[attr-defined]
    kinds = [
        "thinking" if text else "content" for text, delta in zip(thought, deltas, strict=True) if text or delta.content
    ]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds.count("thinking") > 10
    assert kinds.count("content") > 2
    assert "".join(text or "" for text in thought) == THOUGHT
    assert "".join(delta.content or "" for delta in deltas) == "It is 391."
    last, whole = chunks[-1].usage, say(client, QUESTION).usage
    assert last
    assert whole
    assert last.completion_tokens_details == whole.completion_tokens_details


def test_thinking_then_a_call_and_both_are_sent_back(client: OpenAI) -> None:
    reply = say(client, QUESTION, tools=[WEATHER])
    (asked,) = reply.choices
    assert (thinking_of(asked.message), asked.message.content) == (CALLING, None)
    (call,) = asked.message.tool_calls or []
    assert asked.finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny"}
    (answer,) = say(client, QUESTION, asked.message, result, tools=[WEATHER]).choices
    assert (thinking_of(answer.message), answer.message.content) == ("It said so.", "Sunny in Paris.")


def test_an_answer_of_a_form_comes_behind_the_thinking(client: OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "sum", "schema": {"const": 391}}}
    (choice,) = say(client, QUESTION, response_format=form).choices
    assert (thinking_of(choice.message), choice.message.content) == (THOUGHT, "391")


def test_in_responses_thinking_is_an_item_of_its_own(client: OpenAI) -> None:
    response = client.responses.create(model="default", input="What is 17 × 23?", max_output_tokens=300)
    thinking, message = response.output
    assert thinking.type == "reasoning"
    assert message.type == "message"
    assert "".join(part.text for part in thinking.content or []) == THOUGHT
    assert response.output_text == "It is 391."
    assert response.usage
    assert response.usage.output_tokens_details.reasoning_tokens > 5


def test_thinking_beyond_its_bound_is_content_and_no_text_is_lost(tmp_path: Path) -> None:
    model = make_scripted_llama(tmp_path, LINES)
    with client_of(model, "--reasoning-parser", "qwen3", "--max-thinking-tokens", "6") as client:
        reply = say(client, QUESTION)
        deltas = [chunk.choices[0].delta for chunk in stream(client)]
    (choice,) = reply.choices
    thinking, content = thinking_of(choice.message), choice.message.content
    assert thinking
    assert content
    assert THOUGHT.startswith(thinking)
    assert len(thinking) < len(THOUGHT)
    assert (thinking + content).replace("\n", "") == f"{THOUGHT}It is 391."
    assert "</think>" not in content
    assert reply.usage
    assert reply.usage.completion_tokens_details
    assert reply.usage.completion_tokens_details.reasoning_tokens == 6
    assert "".join(delta.reasoning or "" for delta in deltas) == thinking  # type: ignore[attr-defined]
    assert "".join(delta.content or "" for delta in deltas) == content
