"""What the four documents of the contract show to operators: commands, flags, status, limits. See test_seed_examples.

| example | in | test |
|---|---|---|
| launch --model-path … --queue-size; GET /v1/queue/stats | S3 | test_launch_and_its_queue |
| GET /v1/status, its fields and curl | S1 S2 | test_status_with_a_request_under_way |
| Queue Full (429), Request Timeout | S3 | test_a_full_queue, test_a_request_that_takes_too_long |
| serve --api-key --rate-limit 60 --timeout 120 | S1 S2 | test_recommended_settings |
| GET /metrics, off and on | S2 | test_metrics |
| GET /v1/capabilities and its typed helper | S1 | test_capabilities |
| GET /v1/models, GET /health | S0 S1 S2 | test_models_and_health |
| --localhost, --strict-model-id, --default-…, --stream-interval, --effective-context-tokens | S1 S2 | test_flags |
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from api.capabilities_client import fetch_capabilities, summarize_capabilities
from tests.e2e.process import ServerProcess

LONG = 1900
"""Tokens that the tiny model takes a second or more to write."""


@contextmanager
def writing(server: ServerProcess) -> Iterator[None]:
    """While a stream is under way; whoever leaves ends it."""
    with (
        OpenAI(base_url=f"{server.url}/v1", api_key="not-needed", max_retries=0) as client,
        client.completions.create(model="default", prompt="Hi", max_tokens=LONG, stream=True) as stream,
    ):
        next(stream)
        yield


def test_launch_and_its_queue(tiny_model: Path) -> None:
    flags = ("--model-type", "lm", "--max-concurrency", "1", "--queue-timeout", "300", "--queue-size", "100")
    with (
        ServerProcess("--model-path", str(tiny_model), *flags, command="launch") as server,
        ThreadPoolExecutor(1) as pool,
        writing(server),
    ):
        waiting = pool.submit(say, server)
        for _ in count():
            stats = httpx.get(f"{server.url}/v1/queue/stats").json()
            if stats["queue_stats"]["queue_size"] or waiting.done():
                break
    assert waiting.result()
    assert stats == {
        "status": "ok",
        "queue_stats": {
            "running": True,
            "queue_size": 1,
            "max_queue_size": 100,
            "active_requests": 2,
            "max_concurrency": 1,
        },
    }


def say(server: ServerProcess, **fields: object) -> str:
    """One greedy reply of a few tokens."""
    body = {"model": "default", "prompt": "Hi", "max_tokens": 5, "temperature": 0} | fields
    with OpenAI(base_url=f"{server.url}/v1", api_key="not-needed", max_retries=0) as client:
        return str(client.completions.create(**body).choices[0].text)  # type: ignore[call-overload]


STATUS = {
    "status": str,
    "model": str,
    "uptime_s": float,
    "steps_executed": int,
    "num_running": int,
    "num_waiting": int,
    "total_requests_processed": int,
    "total_prompt_tokens": int,
    "total_completion_tokens": int,
}
MEMORY = ("active_memory_gb", "peak_memory_gb", "cache_memory_gb")
REQUEST = {
    "request_id": str,
    "phase": str,
    "tokens_per_second": float,
    "ttft_s": float,
    "progress": float,
    "cache_hit_type": str,
    "cached_tokens": int,
    "generated_tokens": int,
    "max_tokens": int,
}


def kinds(shown: dict[str, object], wanted: dict[str, type]) -> dict[str, type]:
    return {name: type(shown[name]) for name in wanted}


def test_status_with_a_request_under_way(tiny_server: ServerProcess) -> None:
    say(tiny_server)
    with writing(tiny_server):
        command = f"curl -s {tiny_server.url}/v1/status | {sys.executable} -m json.tool"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    status = json.loads(done.stdout)
    assert kinds(status, STATUS) == STATUS
    assert (status["status"], status["num_running"], status["num_waiting"]) == ("running", 1, 0)
    assert status["total_completion_tokens"] >= 5
    assert set(status["metal"]) == set(MEMORY)
    assert status["cache"].keys() >= {"type", "entries", "hit_rate", "memory_mb"}
    one_by_one = {"active_concurrency": 1, "peak_concurrency": 1, "mode": "simple", "serialized": False}
    assert status["runtime"] == one_by_one
    (request,) = status["requests"]
    assert kinds(request, REQUEST) == REQUEST
    assert (request["phase"], request["max_tokens"]) == ("generation", LONG)
    assert request["cache_hit_type"] in ("exact", "prefix", "supersequence", "lcp", "miss")
    assert request["progress"] == pytest.approx(request["generated_tokens"] / LONG)


def test_a_full_queue(tiny_model: Path) -> None:
    with (
        ServerProcess(str(tiny_model), "--max-concurrency", "1", "--queue-size", "0") as server,
        writing(server),
        pytest.raises(openai.RateLimitError, match=r"Too many requests\. Service is at capacity\.") as caught,
    ):
        say(server)
    assert int(caught.value.response.headers["Retry-After"]) >= 1


def test_a_request_that_takes_too_long(tiny_model: Path) -> None:
    with (
        ServerProcess(str(tiny_model), "--timeout", "0.25") as server,
        pytest.raises(openai.APIStatusError, match=r"Request processing timed out after 0\.25 seconds") as caught,
    ):
        say(server, max_tokens=LONG)
    assert caught.value.status_code == 504


def test_recommended_settings(tiny_model: Path) -> None:
    flags = ("--api-key", "your-secret-key", "--rate-limit", "60", "--timeout", "120")
    with ServerProcess(str(tiny_model), *flags) as server:
        models, key = f"{server.url}/v1/models", {"Authorization": "Bearer your-secret-key"}
        assert httpx.get(models).status_code == 401
        assert httpx.get(models, headers={"x-api-key": "your-secret-key"}).status_code == 200
        caps = fetch_capabilities(f"{server.url}/v1", api_key="your-secret-key")
        assert caps["rate_limit"]["requests_per_minute"] == 60
        assert caps["limits"]["default_timeout_seconds"] == 120
        with httpx.Client(headers=key) as client:
            replies = [client.get(models) for _ in range(90)]
        assert {reply.status_code for reply in replies[:58]} == {200}
        (first, *_) = [reply for reply in replies if reply.status_code == 429]
        assert int(first.headers["Retry-After"]) >= 1
        assert first.json()["error"]["type"] == "rate_limit_error"
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_metrics(tiny_server: ServerProcess, tiny_model: Path) -> None:
    assert httpx.get(f"{tiny_server.url}/metrics").status_code == 404
    with ServerProcess(str(tiny_model), "--enable-metrics", "--api-key", "your-secret-key") as server:
        text = httpx.get(f"{server.url}/metrics").text
    for family in ("troupe_server_", "troupe_scheduler_", "troupe_cache_", "troupe_engine_", "troupe_request_"):
        assert f"\n# TYPE {family}" in text


def test_capabilities(tiny_server: ServerProcess) -> None:
    caps = fetch_capabilities(tiny_server.url, api_key="not-needed")
    runtime = summarize_capabilities(caps)
    assert (runtime["supports_multimodal"], runtime["default_timeout_seconds"]) == (False, 300.0)
    assert caps["features"]["request_diagnostics"]
    assert not caps["features"]["strict_model_id"]
    assert caps["diagnostics"]["default_level"] == "basic"
    assert caps["limits"]["effective_context_tokens"] == 2048
    assert caps["policies"]["repetition"].keys() == {"default_mode", "supported_modes", "request_override"}


def test_models_and_health(tiny_server: ServerProcess, tiny_model: Path) -> None:
    with OpenAI(base_url=f"{tiny_server.url}/v1", api_key="not-needed") as client:
        assert [model.id for model in client.models.list()] == [tiny_model.name]
    health = httpx.get(f"{tiny_server.url}/health")
    assert (health.status_code, health.json()["status"]) == (200, "ok")


def test_flags(tiny_model: Path) -> None:
    flags = ("--host", "0.0.0.0", "--localhost", "--strict-model-id", "--stream-interval", "5", "--max-tokens", "20")
    sampling = ("--default-temperature", "0", "--default-top-p", "0.9", "--effective-context-tokens", "64")
    with (
        ServerProcess(str(tiny_model), *flags, *sampling) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="not-needed", max_retries=0) as client,
    ):
        assert server.url.startswith("http://127.0.0.1:")
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="default", prompt="Hi")
        whole = client.completions.create(model=tiny_model.name, prompt="Hi")
        assert whole.usage
        assert whole.usage.completion_tokens == 20
        chunks = list(client.completions.create(model=tiny_model.name, prompt="Hi", stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
        assert 4 <= len(chunks) <= 5
        with pytest.raises(openai.BadRequestError, match="63 maximum"):
            client.completions.create(model=tiny_model.name, prompt="word " * 100)
