"""The official OpenAI client against the application behind Hypercorn, on both event loops.

The client is the synchronous one, in a thread of its own: on trio the asynchronous one (3.51) leaves its
generators to the garbage collector, which trio reports.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import openai
import pytest
from anyio.to_thread import run_sync
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from quart import Quart

from actors import messages as m
from api.text.codec import HfCodec
from runtime.types import CancelCause, RejectReason
from tests.api.fakes import FakeDesk, begins, cancelled_by, ends_with, ids_of, make_app, says, served

pytestmark = pytest.mark.anyio

KEY = "k3y"
HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi there"}]

T = TypeVar("T")


@pytest.fixture
def app(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> Quart:
    return make_app(desk, fresh_codec, anyio_backend, api_key=KEY)


@asynccontextmanager
async def sdk_of(app: Quart, key: str = KEY) -> AsyncIterator[OpenAI]:
    async with served(app) as port:
        with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0, timeout=20) as client:
            yield client


async def use(app: Quart, work: Callable[[OpenAI], T], key: str = KEY) -> T:
    """Let `work` use a client, in a thread, while the application is served."""
    async with sdk_of(app, key) as client:
        return await run_sync(work, client)


async def error_of(app: Quart, work: Callable[[OpenAI], object], key: str = KEY) -> openai.APIError:
    """What the client raises; caught in its thread, because task groups wrap what they let through."""

    def caught(client: OpenAI) -> openai.APIError:
        with pytest.raises(openai.APIError) as info:
            work(client)
        return info.value

    return await use(app, caught, key)


async def test_a_whole_chat(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("One.", "Two.")
    reply = await use(
        app,
        lambda client: client.chat.completions.create(
            model="default", messages=HI, n=2, logprobs=True, top_logprobs=2, seed=5, logit_bias={"7": -100}
        ),
    )
    assert [choice.message.content for choice in reply.choices] == ["One.", "Two."]
    assert [choice.finish_reason for choice in reply.choices] == ["stop", "stop"]
    scored = reply.choices[0].logprobs
    assert scored
    assert "".join(entry.token for entry in scored.content or []) == "One."
    assert all(len(entry.top_logprobs) == 2 for entry in scored.content or [])
    assert reply.usage
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.id == f"chatcmpl-{reply._request_id}"


async def test_a_streamed_chat(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("One.", "Two.")
    texts, reasons, spent = {0: "", 1: ""}, dict[int, str](), list[int]()

    def work(client: OpenAI) -> None:
        for chunk in client.chat.completions.create(
            model="default", messages=HI, n=2, stream=True, stream_options={"include_usage": True}
        ):
            spent.extend([chunk.usage.completion_tokens] if chunk.usage else [])
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    reasons[choice.index] = choice.finish_reason

    await use(app, work)
    assert (texts, reasons) == ({0: "One.", 1: "Two."}, {0: "stop", 1: "stop"})
    assert spent == [len(ids_of("One.")) + len(ids_of("Two.")) + 2]


async def test_the_clients_own_stream_helper(app: Quart) -> None:
    def work(client: OpenAI) -> str | None:
        with client.chat.completions.stream(model="default", messages=HI) as stream:
            return stream.get_final_completion().choices[0].message.content

    assert await use(app, work) == "Hello world."


async def test_a_stop_string(app: Quart, desk: FakeDesk) -> None:
    desk.script = begins("Hello world. And more")
    reply = await use(app, lambda client: client.chat.completions.create(model="m", messages=HI, stop=["world"]))
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("Hello ", "stop")


async def test_whole_completions(app: Quart) -> None:
    reply = await use(app, lambda client: client.completions.create(model="m", prompt=["Once", "upon"], logprobs=1))
    assert [choice.text for choice in reply.choices] == ["Hello world."] * 2
    assert reply.choices[1].logprobs
    assert "".join(reply.choices[1].logprobs.tokens or []) == "Hello world.<|im_end|>"


async def test_streamed_completions(app: Quart) -> None:
    def work(client: OpenAI) -> str:
        stream = client.completions.create(model="m", prompt="Once", stream=True)
        return "".join(chunk.choices[0].text for chunk in stream)

    assert await use(app, work) == "Hello world."


async def test_fields_beyond_openai_go_through_extra_body(app: Quart, desk: FakeDesk) -> None:
    extra = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}
    await use(app, lambda client: client.chat.completions.create(model="m", messages=HI, extra_body=extra))
    sampling = desk.admitted[0].sampling
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (5, 0.1, 1.2)


async def test_models(app: Quart) -> None:
    def work(client: OpenAI) -> list[str]:
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-4")
        return [model.id for model in client.models.list()]

    assert await use(app, work) == ["tiny/llama"]


async def test_a_wrong_key(app: Quart) -> None:
    error = await error_of(app, lambda client: client.models.list(), key="wrong")
    assert isinstance(error, openai.AuthenticationError)


async def test_an_unknown_field(app: Quart) -> None:
    extra = {"mood": "good"}
    error = await error_of(app, lambda it: it.chat.completions.create(model="m", messages=HI, extra_body=extra))
    assert isinstance(error, openai.BadRequestError)
    assert error.param == "mood"


async def test_a_field_that_is_not_honoured_yet(app: Quart) -> None:
    error = await error_of(app, lambda client: client.chat.completions.create(model="m", messages=HI, functions=[]))
    assert isinstance(error, openai.BadRequestError)
    assert "functions: is not supported yet" in error.message


async def test_a_prompt_that_is_too_long(app: Quart) -> None:
    error = await error_of(app, lambda client: client.completions.create(model="m", prompt="word " * 300))
    assert isinstance(error, openai.BadRequestError)
    assert error.code == "context_length_exceeded"


async def test_a_full_queue(app: Quart, desk: FakeDesk) -> None:
    desk.refusal = lambda request_id: m.Rejected(request_id, RejectReason.QUEUE_FULL, 1.0)
    error = await error_of(app, lambda client: client.chat.completions.create(model="m", messages=HI, stream=True))
    assert isinstance(error, openai.RateLimitError)
    assert error.response.headers["retry-after"] == "1"


async def test_a_deadline_that_passes_before_a_whole_reply(app: Quart, desk: FakeDesk) -> None:
    desk.script = ends_with(cancelled_by(CancelCause.DEADLINE), "Hello")
    error = await error_of(app, lambda client: client.chat.completions.create(model="m", messages=HI))
    assert isinstance(error, openai.InternalServerError)
    assert error.status_code == 504


async def test_a_deadline_that_passes_in_the_middle_of_a_stream(app: Quart, desk: FakeDesk) -> None:
    desk.script = ends_with(cancelled_by(CancelCause.DEADLINE), "Hello")
    seen: list[str] = []

    def work(client: OpenAI) -> None:
        for chunk in client.chat.completions.create(model="m", messages=HI, stream=True):
            seen.append(chunk.choices[0].delta.content or "")

    error = await error_of(app, work)
    assert "timed out" in error.message
    assert "".join(seen) == "Hello"


async def test_a_stream_that_is_closed_half_way_is_cancelled(app: Quart, desk: FakeDesk) -> None:
    desk.script = begins("Hello")

    def work(client: OpenAI) -> None:
        with client.chat.completions.create(model="m", messages=HI, stream=True) as stream:
            next(chunk for chunk in stream if chunk.choices[0].delta.content)

    async with sdk_of(app) as client:
        await run_sync(work, client)
        await desk.until(lambda desk: desk.cancelled)
    assert desk.causes == [CancelCause.CLIENT_LEFT]


async def test_a_body_of_twenty_megabytes_and_then_a_good_one(app: Quart) -> None:
    def work(client: OpenAI) -> str:
        with pytest.raises(openai.APIStatusError) as caught:
            client.completions.create(model="m", prompt="x" * 20_000_000)
        assert caught.value.status_code == 413
        return client.completions.create(model="m", prompt="Once").choices[0].text

    assert await use(app, work) == "Hello world."


async def test_a_wrong_key_on_a_large_body_is_told_so(app: Quart) -> None:
    text = "x" * 5_000_000
    error = await error_of(app, lambda client: client.completions.create(model="m", prompt=text), key="wrong")
    assert isinstance(error, openai.AuthenticationError)


async def test_a_choice_that_went_round_in_circles_says_so_beside_its_finish_reason(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("Over and over again. " * 20)

    def work(client: OpenAI) -> None:
        strict = {"repetition_policy_override": "strict"}
        (choice,) = client.chat.completions.create(model="default", messages=HI, extra_body=strict).choices
        detected = {"stop_reason": "repetition_detected", "stop_reason_detail": "phrase_loop"}
        assert (choice.finish_reason, choice.model_extra) == ("stop", detected)

    await use(app, work)
