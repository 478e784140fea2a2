"""The examples of the four documents that the contract is made of, run as a user would run them.

S0 to S2 document one server in three versions, S3 another. Every example for a client is here, or where the table says:

| example | in | test |
|---|---|---|
| Chat Completions, whole and streamed | S0 S1 S2 | test_chat_whole, test_chat_streamed |
| the same with frequency_penalty and diagnostics | S1 | test_chat_with_a_penalty_and_diagnostics |
| Completions | S0 S1 S2 | test_completions |
| Tool calling | S0 S1 S2 | test_a_tool_on_offer |
| Function Calling | S3 | test_function_calling |
| Reasoning, whole and streamed | S0 S1 S2 | test_reasoning |
| JSON object and JSON schema mode | S0 S1 S2 | test_json_object_mode, test_json_schema_mode |
| Curl: chat, streaming, JSON | S0 S1 S2 | test_curl |
| Quick start, text completion: any model name | S3 | test_any_model_name |
| Vision request to a text-only model | S3 | test_a_vision_request_to_a_text_only_model |
| Responses, chunks and errors as shown | S3 | test_curl, test_an_error_as_shown |
| Anthropic messages, curl, count_tokens | S1 S2 | tests/e2e/test_anthropic_sdk.py |
| commands, operators' routes, limits | all | tests/e2e/test_seed_operations.py |
| --version, --help | S3 | tests/runtime/test_settings.py |
| Claude Code | S1 S2 | tests/soak/clients/agents.py |
| repetition_policy_override, stop_reason | S1 | tests/api/test_repetition_replies.py |

Embeddings, vision, MCP and caches are not there yet.
"""

import json
import subprocess
from collections.abc import Iterator

import openai
import orjson
import pytest
from openai import OpenAI
from openai.types.chat import (
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)

from tests.e2e.process import ServerProcess
from tests.scripted import Lines, hermes_call, make_scripted_llama

LINES = Lines(
    call=hermes_call("get_weather", {"city": "Tokyo"}),
    answer="Tokyo has 22°C.",
    plain="<think>\n17 × 20 is 340, 17 × 3 is 51.\n</think>\n\n17 × 23 = 391",
)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """For examples whose model must think or call: a model that does."""
    model = make_scripted_llama(tmp_path_factory.mktemp("scripted"), LINES)
    flags = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3")
    with (
        ServerProcess(str(model), *flags) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="not-needed") as client,
    ):
        yield client


@pytest.mark.model
@pytest.mark.long_prompts
def test_chat_whole(default_client: OpenAI) -> None:
    response = default_client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "Hello!"}], max_tokens=100
    )
    assert response.choices[0].message.content


@pytest.mark.model
@pytest.mark.long_prompts
def test_chat_streamed(default_client: OpenAI) -> None:
    stream = default_client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "Tell me a story"}], stream=True
    )
    printed = ""
    for chunk in stream:
        if chunk.choices[0].delta.content:
            printed += chunk.choices[0].delta.content
    assert len(printed) > 20
    assert chunk.choices[0].finish_reason


@pytest.mark.model
@pytest.mark.long_prompts
def test_chat_with_a_penalty_and_diagnostics(default_client: OpenAI) -> None:
    response = default_client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "Hello!"}],
        max_tokens=20,
        frequency_penalty=0.2,
        extra_body={"include_diagnostics": True, "diagnostics_level": "deep"},
    )
    assert response.model_extra
    assert response.model_extra["diagnostics"]["level"] == "deep"
    assert response.model_extra["diagnostics"]["runtime"]["room"] == "ready"


@pytest.mark.model
@pytest.mark.long_prompts
def test_completions(default_client: OpenAI) -> None:
    response = default_client.completions.create(
        model="default", prompt="The capital of France is", max_tokens=50, frequency_penalty=0.2
    )
    assert response.choices[0].text


@pytest.mark.model
@pytest.mark.long_prompts
def test_a_tool_on_offer(default_client: OpenAI) -> None:
    response = default_client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "What's the weather in Paris?"}],
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "Get weather for a city",
                    "parameters": {
                        "type": "object",
                        "properties": {"city": {"type": "string"}},
                        "required": ["city"],
                    },
                },
            }
        ],
    )
    (choice,) = response.choices
    assert (choice.finish_reason == "tool_calls") == bool(choice.message.tool_calls)
    assert choice.message.content or choice.message.tool_calls


def test_function_calling(scripted: OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Tokyo?"}]
    tools: list[ChatCompletionToolParam] = [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Get the weather in a given city",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "description": "The city to get the weather for"}},
                },
            },
        }
    ]
    completion = scripted.chat.completions.create(
        model="local-model", messages=messages, tools=tools, tool_choice="auto"
    )
    message = completion.choices[0].message
    assert message.tool_calls
    tool_call = message.tool_calls[0]
    assert isinstance(tool_call, ChatCompletionMessageFunctionToolCall)
    assert (tool_call.function.name, tool_call.function.arguments) == ("get_weather", '{"city": "Tokyo"}')
    weather_info = {"temperature": "22°C", "conditions": "Sunny", "humidity": "65%"}
    messages.append(message)  # type: ignore[arg-type]
    result = {
        "role": "tool",
        "tool_call_id": tool_call.id,
        "name": tool_call.function.name,
        "content": str(weather_info),
    }
    messages.append(result)  # type: ignore[arg-type]
    final_response = scripted.chat.completions.create(model="local-model", messages=messages)
    assert final_response.choices[0].message.content == "17 × 23 = 391", "what it says without tools"


def test_reasoning(scripted: OpenAI) -> None:
    response = scripted.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "What is 17 × 23?"}]
    )
    message = response.choices[0].message
    assert message.reasoning == "17 × 20 is 340, 17 × 3 is 51."  # type: ignore[attr-defined]
    assert message.content == "17 × 23 = 391"
    stream = scripted.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "What is 17 × 23?"}], stream=True
    )
    printed = ""
    for chunk in stream:
        delta = chunk.choices[0].delta
        if delta.reasoning:  # type: ignore[attr-defined]
            printed += delta.reasoning.upper()  # type: ignore[attr-defined]
        if delta.content:
            printed += delta.content
    assert printed == "17 × 20 IS 340, 17 × 3 IS 51.17 × 23 = 391"


COLOURS = "List 3 colors"


@pytest.mark.model
@pytest.mark.long_prompts
def test_json_object_mode(default_client: OpenAI) -> None:
    response = default_client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": COLOURS}],
        response_format={"type": "json_object"},
        temperature=1,
        seed=1,  # not in the example: a choice that is not empty, and short
    )
    assert json.loads(response.choices[0].message.content or "").keys()


@pytest.mark.model
@pytest.mark.long_prompts
def test_json_schema_mode(default_client: OpenAI) -> None:
    response = default_client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": COLOURS}],
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "colors",
                "schema": {
                    "type": "object",
                    "properties": {"colors": {"type": "array", "items": {"type": "string"}}},
                    "required": ["colors"],
                },
            },
        },
        temperature=1,
        seed=6,  # not in the example: a list that ends
    )
    data = json.loads(response.choices[0].message.content or "")
    assert "colors" in data


def curl(server: ServerProcess, body: str) -> str:
    command = f"""curl -sS http://localhost:8000/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{body}'"""
    command = command.replace("http://localhost:8000", server.url)
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.model
@pytest.mark.long_prompts
def test_curl(default_server: ServerProcess) -> None:
    whole = orjson.loads(
        curl(
            default_server,
            """{
    "model": "default",
    "messages": [{"role": "user", "content": "Hello!"}],
    "max_tokens": 100
  }""",
        )
    )
    assert whole.keys() >= {"id", "object", "created", "model", "choices", "usage"}
    assert whole["id"].startswith("chatcmpl-")
    assert whole["object"] == "chat.completion"
    assert whole["choices"][0]["message"].keys() == {"role", "content"}
    assert whole["choices"][0]["finish_reason"] in ("stop", "length")
    assert whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + whole["usage"]["completion_tokens"]


@pytest.mark.model
@pytest.mark.long_prompts
def test_curl_streaming(default_server: ServerProcess) -> None:
    lines = curl(
        default_server,
        """{
    "model": "default",
    "messages": [{"role": "user", "content": "Hello!"}],
    "stream": true
  }""",
    ).split("\n\n")
    *events, done, rest = [line for line in lines if not line.startswith(":")]
    assert (done, rest) == ("data: [DONE]", "")
    chunks = [orjson.loads(event.removeprefix("data: ")) for event in events]
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["choices"][0].keys() >= {"index", "delta", "finish_reason"}
    assert [chunk["choices"][0]["finish_reason"] is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]


@pytest.mark.model
@pytest.mark.long_prompts
def test_curl_json(default_server: ServerProcess) -> None:
    reply = orjson.loads(
        curl(
            default_server,
            """{
    "model": "default",
    "messages": [{"role": "user", "content": "List 3 colors"}],
    "response_format": {"type": "json_object"}
  }""",
        )
    )
    assert isinstance(orjson.loads(reply["choices"][0]["message"]["content"]), dict)


@pytest.mark.model
@pytest.mark.long_prompts
def test_any_model_name(default_client: OpenAI) -> None:
    response = default_client.chat.completions.create(
        model="local-model",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0.7,
    )
    assert response.choices[0].message.content
    assert response.model == "SmolLM2-135M-Instruct"


@pytest.mark.model
@pytest.mark.long_prompts
def test_a_vision_request_to_a_text_only_model(default_client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="text-only"):
        default_client.chat.completions.create(
            model="local-vlm",
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What's in this image?"},
                        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AAQSkZJRg=="}},
                    ],
                }
            ],
        )


@pytest.mark.model
@pytest.mark.long_prompts
def test_an_error_as_shown(default_server: ServerProcess) -> None:
    error = orjson.loads(curl(default_server, '{"model": "default"}'))["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", "messages")
