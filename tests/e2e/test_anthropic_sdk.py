"""The official Anthropic client against a real server process with the embedded default model: what the contract
promises and what users of other servers have in their scripts."""

from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import pytest
from anthropic import Anthropic
from anthropic.types import Message, MessageParam, ToolParam, ToolUseBlock

from tests.e2e.process import ServerProcess

pytestmark = [pytest.mark.model, pytest.mark.long_prompts]

WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "Get weather for a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 40}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
GREEDY = {"temperature": 0}
"""The client's newer versions have no argument for it."""
QUESTION: MessageParam = {"role": "user", "content": "What's the weather in Paris?"}


@pytest.fixture(scope="module")
def server(default_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(str(default_model), "--enable-auto-tool-choice", "--tool-call-parser", "hermes") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.url, api_key="not-needed", auth_token=None, max_retries=0) as made:
        yield made


def say(client: Anthropic, *messages: MessageParam, **fields: object) -> Message:
    """One whole message, as short as it may be and always the same."""
    settings = {"model": "default", "max_tokens": 16, "messages": list(messages), "extra_body": GREEDY} | fields
    reply = client.messages.create(**settings)  # type: ignore[call-overload]
    assert isinstance(reply, Message)
    return reply


def user(text: str) -> MessageParam:
    return {"role": "user", "content": text}


def text_of(reply: Message) -> str:
    return "".join(block.text for block in reply.content if block.type == "text")


def test_a_whole_message(client: Anthropic) -> None:
    reply = client.messages.create(model="default", max_tokens=16, messages=[user("Hello!")])
    assert reply.content[0].type == "text"
    assert reply.content[0].text
    assert reply.stop_reason in ("end_turn", "max_tokens")
    assert reply.usage.input_tokens > 0
    assert 0 < reply.usage.output_tokens <= 16


def test_a_streamed_message_says_what_a_whole_one_says(client: Anthropic) -> None:
    whole = say(client, user("Tell me a story"))
    with client.messages.stream(
        model="default", max_tokens=16, messages=[user("Tell me a story")], extra_body=GREEDY
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == text_of(final) == text_of(whole)
    assert (final.usage, final.stop_reason) == (whole.usage, whole.stop_reason)
    with client.beta.messages.stream(
        model="default", max_tokens=16, messages=[{"role": "user", "content": "Tell me a story"}], extra_body=GREEDY
    ) as of_beta:
        assert "".join(of_beta.text_stream) == text


def test_system_messages_are_a_string_or_blocks(client: Anthropic) -> None:
    in_blocks = [
        {"type": "text", "text": "You are a helpful assistant."},
        {"type": "text", "text": "Be concise in your answers.", "cache_control": {"type": "ephemeral"}},
    ]
    as_string = "You are a helpful assistant.\n\nBe concise in your answers."
    first = say(client, user("What is 2+2?"), system=in_blocks)
    second = say(client, user("What is 2+2?"), system=as_string)
    assert (text_of(first), first.usage.input_tokens) == (text_of(second), second.usage.input_tokens)


def test_a_conversation_of_several_turns(client: Anthropic) -> None:
    turns: list[MessageParam] = [
        user("My name is Alice."),
        {"role": "assistant", "content": "Nice to meet you, Alice!"},
        user("What's my name?"),
    ]
    reply = say(client, *turns)
    assert text_of(reply) != text_of(say(client, turns[-1]))
    assert reply.usage.input_tokens > say(client, turns[0], max_tokens=1).usage.input_tokens + 10


def test_tools_that_the_model_may_call(client: Anthropic) -> None:
    reply = say(client, QUESTION, tools=[WEATHER], max_tokens=48)
    for block in reply.content:
        assert block.type == "text" or (block.type == "tool_use" and block.name == "get_weather")
    called = any(block.type == "tool_use" for block in reply.content)
    assert reply.stop_reason == "tool_use" if called else reply.stop_reason in ("end_turn", "max_tokens")


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "get_weather"}, {"type": "any"}])
def test_a_tool_loop_of_two_turns(client: Anthropic, choice: dict[str, str]) -> None:
    fields = {"tools": [WEATHER], "max_tokens": 128}
    one_call = {**choice, "disable_parallel_tool_use": True}
    reply = say(client, QUESTION, tool_choice=one_call, **fields)
    assert reply.stop_reason == "tool_use"
    (call,) = (block for block in reply.content if isinstance(block, ToolUseBlock))
    assert call.name == "get_weather"
    assert list(call.input) == ["city"]
    assert isinstance(call.input["city"], str)
    answer: MessageParam = {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Sunny, 22C"}],
    }
    turns: list[MessageParam] = [QUESTION, {"role": "assistant", "content": reply.content}, answer]
    last = say(client, *turns, tool_choice={"type": "none"}, **fields)
    assert text_of(last)
    counted = client.messages.count_tokens(
        model="default", messages=turns, tools=[WEATHER], tool_choice={"type": "none"}
    )
    assert counted.input_tokens == last.usage.input_tokens


def test_a_wanted_call_is_streamed_in_pieces_that_the_client_puts_together(client: Anthropic) -> None:
    wanted = {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
    whole = say(client, QUESTION, tools=[WEATHER], tool_choice=wanted, max_tokens=128)
    with client.messages.stream(
        model="default",
        max_tokens=128,
        extra_body=GREEDY,
        messages=[QUESTION],
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
    ) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    (call,) = (block for block in final.content if isinstance(block, ToolUseBlock))
    assert [call.input] == [block.input for block in whole.content if isinstance(block, ToolUseBlock)]
    assert (pieces[0], final.stop_reason) == ("", "tool_use")
    assert len(pieces) > 3


def test_an_output_format_is_kept(client: Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string", "maxLength": 30}},
        "required": ["title"],
        "additionalProperties": False,
    }
    reply = say(
        client,
        user("Give this conversation a title."),
        max_tokens=64,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert list(httpx.Response(200, text=text_of(reply)).json()) == ["title"]


def test_the_beginning_of_an_answer_is_continued(client: Anthropic) -> None:
    free = text_of(say(client, user("What is the capital of France?")))
    begun = free[: free.index(" ", 8)]
    rest = say(client, user("What is the capital of France?"), {"role": "assistant", "content": begun})
    assert (begun + text_of(rest)).startswith(free)


def test_a_stop_sequence_is_reported(client: Anthropic) -> None:
    free = text_of(say(client, user("Tell me a story")))
    stop = free[8:11]
    reply = say(client, user("Tell me a story"), stop_sequences=["never said", stop])
    assert text_of(reply) == free[: free.index(stop)]
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", stop)


def test_count_tokens_is_what_the_request_then_reports(server: ServerProcess) -> None:
    body = {
        "model": "default",
        "messages": [{"role": "user", "content": "Hello, how are you?"}],
        "system": "You are helpful.",
        "tools": [
            {
                "name": "search",
                "description": "Search the web",
                "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
            }
        ],
    }
    counted = httpx.post(f"{server.url}/v1/messages/count_tokens", json=body, timeout=60).json()
    reply = httpx.post(f"{server.url}/v1/messages", json=body | {"max_tokens": 1}, timeout=60).json()
    assert counted == {"input_tokens": reply["usage"]["input_tokens"]}


def test_a_stream_as_curl_sees_it(server: ServerProcess) -> None:
    body = {
        "model": "default",
        "max_tokens": 4,
        "stream": True,
        "messages": [{"role": "user", "content": "Tell me a joke"}],
    }
    lines = httpx.post(f"{server.url}/v1/messages", json=body, timeout=60).text.splitlines()
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    start, ping, begin, *deltas, end, delta, stop = names
    assert (start, ping, begin) == ("message_start", "ping", "content_block_start")
    assert set(deltas) == {"content_block_delta"}
    assert (end, delta, stop) == ("content_block_stop", "message_delta", "message_stop")


def test_what_cannot_be_honoured_is_a_400(client: Anthropic) -> None:
    image: MessageParam = {
        "role": "user",
        "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            {"type": "text", "text": "What is this?"},
        ],
    }
    for given in ({"messages": [image]}, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}):
        with pytest.raises(anthropic.BadRequestError) as caught:
            say(client, user("Hi"), **given)
        assert caught.value.request_id
