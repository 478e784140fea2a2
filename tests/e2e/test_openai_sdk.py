"""The official OpenAI client against a real server process with a tiny model."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from tests.e2e.process import ServerProcess

MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Tell me a story."}]


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(str(tiny_model), "--api-key", "secret") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0) as made:
        yield made


def say(client: OpenAI, **fields: object) -> str:
    """The content of one whole chat completion."""
    settings = {"model": "default", "messages": MESSAGES, "max_tokens": 24, "temperature": 0} | fields
    return str(client.chat.completions.create(**settings).choices[0].message.content)  # type: ignore[call-overload]


def test_models_lists_the_real_id(client: OpenAI, tiny_model: Path) -> None:
    (model,) = client.models.list().data
    assert model.id == tiny_model.name
    assert client.models.retrieve(model.id).id == model.id


def test_a_whole_chat_completion(client: OpenAI) -> None:
    reply = client.chat.completions.create(model="default", messages=MESSAGES, max_tokens=24, temperature=0)
    assert reply.object == "chat.completion"
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage
    assert reply.usage.completion_tokens == 24
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 24


def test_a_streamed_chat_says_what_a_whole_one_says(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="default",
        messages=MESSAGES,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == say(client)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 24


def test_completions_whole_and_streamed(client: OpenAI) -> None:
    whole = client.completions.create(model="default", prompt="Once upon a", max_tokens=20, temperature=0)
    stream = client.completions.create(model="default", prompt="Once upon a", max_tokens=20, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
    assert whole.choices[0].text


def test_completions_of_many_prompts_and_of_token_ids(client: OpenAI) -> None:
    many = client.completions.create(model="default", prompt=["one", "two"], max_tokens=5, temperature=0, n=2)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert many.choices[0].text == many.choices[1].text
    assert many.choices[0].text != many.choices[2].text
    ids = client.completions.create(model="default", prompt=[20, 21, 22], max_tokens=5, temperature=0)
    assert ids.usage
    assert ids.usage.prompt_tokens == 3


def test_two_choices_differ_and_come_out_whole(client: OpenAI) -> None:
    reply = client.chat.completions.create(
        model="default", messages=MESSAGES, max_tokens=24, n=2, seed=3, temperature=1.5
    )
    first, second = (choice.message.content for choice in reply.choices)
    assert first
    assert second
    assert first != second
    assert reply.usage
    assert reply.usage.completion_tokens == 48
    streamed = ["", ""]
    for chunk in client.chat.completions.create(
        model="default", messages=MESSAGES, max_tokens=24, n=2, seed=3, temperature=1.5, stream=True
    ):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == [first, second]


def test_logprobs_are_those_of_the_text(client: OpenAI) -> None:
    reply = client.chat.completions.create(
        model="default", messages=MESSAGES, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3
    )
    assert reply.choices[0].logprobs
    content = reply.choices[0].logprobs.content
    assert content
    assert len(content) == 6
    for entry in content:
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob == entry.logprob <= 0
        assert entry.top_logprobs[0].token == entry.token
    spoken = b"".join(bytes(entry.bytes or []) for entry in content).decode(errors="replace")
    assert spoken == reply.choices[0].message.content


def test_a_stop_string_ends_the_text_before_it(client: OpenAI) -> None:
    free = say(client)
    stop = free[8:11]
    reply = client.chat.completions.create(
        model="default", messages=MESSAGES, max_tokens=24, temperature=0, stop=[stop, "never said"]
    )
    assert reply.choices[0].message.content == free[: free.index(stop)]
    assert reply.choices[0].finish_reason == "stop"


def test_a_seed_makes_chance_repeat_itself_alone_and_in_company(client: OpenAI) -> None:
    alone = say(client, temperature=1.2, seed=11)
    assert alone == say(client, temperature=1.2, seed=11)
    assert alone != say(client, temperature=1.2, seed=12)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: say(client, temperature=1.2, seed=11 + i % 2), range(8)))
    assert together[::2] == [alone] * 4
    assert together[1::2] == [say(client, temperature=1.2, seed=12)] * 4


def test_logit_bias_forces_and_forbids(client: OpenAI) -> None:
    forced = client.completions.create(
        model="default", prompt="a", max_tokens=3, temperature=0, logit_bias={"40": 100}, logprobs=0
    )
    assert forced.choices[0].logprobs
    assert len(set(forced.choices[0].logprobs.tokens or [])) == 1
    forbidden = client.completions.create(
        model="default", prompt="a", max_tokens=3, temperature=0, logit_bias={"40": -100}
    )
    assert forbidden.choices[0].text != forced.choices[0].text


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"extra_body": {"colour": "red"}}, 400, "colour"),
        ({"extra_body": {"response_format": {"type": "xml"}}}, 400, "response_format.type"),
        ({"temperature": 7}, 400, "temperature"),
        ({"logit_bias": {"999999": 1}}, 400, "logit_bias.999999"),
        ({"messages": []}, 400, "messages"),
    ],
)
def test_a_bad_field_is_a_400_that_names_it(client: OpenAI, fields: dict[str, object], status: int, param: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        say(client, **fields)
    assert caught.value.status_code == status
    assert caught.value.param == param


def test_an_over_long_prompt_is_refused_by_its_length(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        say(client, messages=[{"role": "user", "content": "word " * 4000}])
    assert caught.value.code == "context_length_exceeded"


def test_a_wrong_key_is_a_401(server: ServerProcess) -> None:
    with OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as stranger:
        for ask in (stranger.models.list, lambda: say(stranger)):
            with pytest.raises(openai.AuthenticationError):
                ask()


def test_thirty_two_streams_at_once_each_get_their_own_text(client: OpenAI) -> None:
    prompts = [f"Number {i}: " + "word " * (i % 7) for i in range(32)]

    def streamed(prompt: str) -> str:
        stream = client.completions.create(model="default", prompt=prompt, max_tokens=40, temperature=0, stream=True)
        return "".join(chunk.choices[0].text for chunk in stream)

    alone = [streamed(prompt) for prompt in prompts[:4]]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(streamed, prompts))
    assert together[:4] == alone
    assert len(set(together)) == 32
