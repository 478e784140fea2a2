"""The official Anthropic client against the application behind Hypercorn, on both event loops.

The client is the synchronous one, in a thread of its own, as in test_sdk.py.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import Message, MessageParam, ToolParam, ToolUseBlock
from anyio.to_thread import run_sync
from quart import Quart

from actors import messages as m
from api.text.codec import HfCodec
from runtime.types import CancelCause, FinishReason, RejectReason
from tests.api.fakes import API_FACTS, FakeDesk, begins, cancelled_by, ends_with, ids_of, make_app, says, served

pytestmark = pytest.mark.anyio

KEY = "k3y"
HI: list[MessageParam] = [{"role": "user", "content": "Hi there"}]
TOOL: ToolParam = {
    "name": "get_weather",
    "description": "Weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALLS = (
    "<think>\nHm.\n</think>\n\nLet me see.\n"
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
)

T = TypeVar("T")


@pytest.fixture
def app(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> Quart:
    desk.model_facts = replace(API_FACTS, context_tokens=4096)
    return make_app(
        desk,
        fresh_codec,
        anyio_backend,
        api_key=KEY,
        enable_auto_tool_choice=True,
        tool_call_parser="hermes",
        reasoning_parser="qwen3",
        stream_interval=5,  # The desk says all at once, and must find room for it.
    )


async def use(app: Quart, work: Callable[[Anthropic], T], key: str = KEY) -> T:
    """Let `work` use a client, in a thread, while the application is served."""

    def with_client(port: int) -> T:
        url = f"http://127.0.0.1:{port}"
        with Anthropic(base_url=url, api_key=key, auth_token=None, max_retries=0, timeout=20) as client:
            return work(client)

    async with served(app) as port:
        return await run_sync(with_client, port)


async def error_of(app: Quart, work: Callable[[Anthropic], object], key: str = KEY) -> anthropic.APIStatusError:
    """What the client raises; caught in its thread, because task groups wrap what they let through."""

    def caught(client: Anthropic) -> anthropic.APIStatusError:
        with pytest.raises(anthropic.APIStatusError) as info:
            work(client)
        return info.value

    return await use(app, caught, key)


def create(client: Anthropic) -> Message:
    return client.messages.create(model="default", max_tokens=50, messages=HI)


async def test_a_whole_message(app: Quart) -> None:
    reply = await use(app, create)
    assert [block.type for block in reply.content] == ["text"]
    assert (reply.role, reply.stop_reason, reply.stop_sequence) == ("assistant", "end_turn", None)
    assert reply.usage.output_tokens == len(ids_of("Hello world.")) + 1
    assert reply.id == f"msg_{reply._request_id}"


async def test_a_streamed_message(app: Quart) -> None:
    def work(client: Anthropic) -> tuple[str, Message]:
        with client.messages.stream(model="default", max_tokens=50, messages=HI) as stream:
            return "".join(stream.text_stream), stream.get_final_message()

    text, message = await use(app, work)
    whole = await use(app, create)
    assert text == "Hello world."
    assert [block.to_dict() for block in message.content] == [block.to_dict() for block in whole.content]
    assert (message.usage, message.stop_reason) == (whole.usage, whole.stop_reason)


async def test_the_clients_accumulators_put_thinking_text_and_parallel_calls_together(
    app: Quart, desk: FakeDesk
) -> None:
    desk.script = says(CALLS)

    def streamed(client: Anthropic) -> list[dict[str, object]]:
        with client.messages.stream(model="default", max_tokens=50, messages=HI, tools=[TOOL]) as stream:
            message = stream.get_final_message()
        assert message.stop_reason == "tool_use"
        return [block.to_dict() for block in message.content]

    def of_beta(client: Anthropic) -> list[dict[str, object]]:
        with client.beta.messages.stream(
            model="default", max_tokens=50, messages=[{"role": "user", "content": "Hi"}], betas=["some-beta"]
        ) as stream:
            return [block.to_dict() for block in stream.get_final_message().content]

    def whole(client: Anthropic) -> list[dict[str, object]]:
        reply = client.messages.create(model="default", max_tokens=50, messages=HI, tools=[TOOL])
        assert reply.stop_reason == "tool_use"
        return [block.to_dict() for block in reply.content]

    for work in (streamed, whole):
        thinking, text, first, second = await use(app, work)
        assert (thinking["thinking"], thinking["signature"]) == ("Hm.", "")
        assert str(text["text"]).strip() == "Let me see."
        assert (first["name"], first["input"]) == ("get_weather", {"city": "Paris"})
        assert (second["name"], second["input"]) == ("get_weather", {"city": "Rome"})
        assert first["id"] != second["id"]
    thinking, text = await use(app, of_beta)
    assert "<tool_call>" in str(text["text"])


async def test_a_reply_can_be_sent_back_with_the_results_of_its_calls(app: Quart, desk: FakeDesk) -> None:
    def work(client: Anthropic) -> Message:
        desk.script = says(CALLS)
        reply = client.messages.create(model="default", max_tokens=50, messages=HI, tools=[TOOL])
        desk.script = says("Sunny in both.")
        calls = [block for block in reply.content if isinstance(block, ToolUseBlock)]
        answers: list[MessageParam] = [
            {"role": "assistant", "content": reply.content},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Sunny"} for call in calls],
            },
        ]
        return client.messages.create(model="default", max_tokens=50, messages=[*HI, *answers], tools=[TOOL])

    reply = await use(app, work)
    assert [block.to_dict() for block in reply.content] == [{"type": "text", "text": "Sunny in both."}]


async def test_inputs_come_in_pieces_while_they_are_written(app: Quart, desk: FakeDesk) -> None:
    desk.script = says(CALLS)

    def work(client: Anthropic) -> list[str]:
        with client.messages.stream(model="default", max_tokens=50, messages=HI, tools=[TOOL]) as stream:
            return [event.partial_json for event in stream if event.type == "input_json"]

    pieces = await use(app, work)
    assert pieces[0] == ""
    assert "".join(pieces) == '{"city": "Paris"}{"city": "Rome"}'
    assert len(pieces) > 4


@pytest.mark.parametrize("malformed", ["{'city': 'Paris'}", '{"city": Paris}'])
async def test_a_malformed_call_does_not_break_the_client(app: Quart, desk: FakeDesk, malformed: str) -> None:
    desk.script = says(f'<tool_call>\n{{"name": "get_weather", "arguments": {malformed}}}\n</tool_call>')

    def work(client: Anthropic) -> Message:
        with client.messages.stream(model="default", max_tokens=50, messages=HI, tools=[TOOL]) as stream:
            return stream.get_final_message()

    message = await use(app, work)
    assert message.stop_reason == "end_turn"
    assert any(block.type == "text" and malformed in block.text for block in message.content)


async def test_a_call_that_is_cut_off_says_max_tokens(app: Quart, desk: FakeDesk) -> None:
    desk.script = says(CALLS[: CALLS.index("Paris")], reason=FinishReason.LENGTH)

    def work(client: Anthropic) -> Message:
        with client.messages.stream(model="default", max_tokens=50, messages=HI, tools=[TOOL]) as stream:
            return stream.get_final_message()

    message = await use(app, work)
    assert message.stop_reason == "max_tokens"
    assert message.content[-1].type == "tool_use"


async def test_a_stop_sequence_is_reported(app: Quart, desk: FakeDesk) -> None:
    desk.script = begins("Hello world. And more")
    reply = await use(
        app,
        lambda client: client.messages.create(model="m", max_tokens=50, messages=HI, stop_sequences=["x", "world"]),
    )
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", "world")
    assert desk.causes == [CancelCause.STOP_STRING]


async def test_the_count_is_what_the_message_reports(app: Quart) -> None:
    def work(client: Anthropic) -> tuple[int, int]:
        counted = client.messages.count_tokens(model="default", messages=HI, system="Be brief.", tools=[TOOL])
        reply = client.messages.create(
            model="default", max_tokens=50, messages=HI, system=[{"type": "text", "text": "Be brief."}], tools=[TOOL]
        )
        return counted.input_tokens, reply.usage.input_tokens

    counted, reported = await use(app, work)
    assert counted == reported


async def test_a_token_in_the_other_header_opens_too(app: Quart) -> None:
    def work(port: int) -> Message:
        with Anthropic(base_url=f"http://127.0.0.1:{port}", api_key=None, auth_token=KEY, max_retries=0) as client:
            return create(client)

    async with served(app) as port:
        assert (await run_sync(work, port)).type == "message"


async def test_errors_are_those_that_the_client_knows(app: Quart, desk: FakeDesk) -> None:
    error = await error_of(app, create, key="wrong")
    assert isinstance(error, anthropic.AuthenticationError)
    assert (error.type, bool(error.request_id)) == ("authentication_error", True)
    error = await error_of(app, lambda client: client.messages.create(model="m", max_tokens=0, messages=HI))
    assert isinstance(error, anthropic.BadRequestError)
    assert str(error.api_message).startswith("max_tokens: ")
    desk.refusal = lambda request_id: m.Rejected(request_id, RejectReason.QUEUE_FULL, 1.0)
    error = await error_of(app, create)
    assert isinstance(error, anthropic.RateLimitError)
    assert error.response.headers["retry-after"] == "1"


async def test_an_error_in_the_middle_of_a_stream_is_raised_behind_its_text(app: Quart, desk: FakeDesk) -> None:
    desk.script = ends_with(cancelled_by(CancelCause.DEADLINE), "Hello")
    seen: list[str] = []

    def work(client: Anthropic) -> None:
        with client.messages.stream(model="default", max_tokens=50, messages=HI) as stream:
            seen.extend(stream.text_stream)

    error = await error_of(app, work)
    assert error.type == "timeout_error"
    assert "".join(seen) == "Hello"


async def test_a_message_that_went_round_in_circles_says_so_in_a_field_of_its_own(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str
) -> None:
    desk.script = says("I do not know what to say. " * 60)
    app = make_app(desk, fresh_codec, anyio_backend, api_key=KEY, stream_interval=30)

    def work(client: Anthropic) -> None:
        with client.messages.stream(model="default", messages=HI, max_tokens=2000) as stream:
            deltas = [event.delta for event in stream if event.type == "message_delta"]
            streamed = stream.get_final_message()
        whole = client.messages.create(model="default", messages=HI, max_tokens=2000)
        assert (streamed.stop_reason, whole.stop_reason) == ("end_turn", "end_turn")
        assert whole.model_extra == {"repetition_detected": "phrase_loop"}
        assert [delta.model_extra for delta in deltas] == [whole.model_extra]

    await use(app, work)
