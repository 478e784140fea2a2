"""/v1/capabilities and its client: what is said is what is set, and errors are one clear line."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import cast, get_type_hints

import anyio
import orjson
import pytest
from quart import Quart

from api.capabilities import capabilities
from api.capabilities_client import (
    Capabilities,
    CapabilitiesError,
    Summary,
    fetch_capabilities,
    summarize_capabilities,
)
from api.text.codec import HfCodec
from runtime.settings import Settings
from tests.api.calling import call
from tests.api.fakes import API_FACTS, FakeDesk, make_app, served, snapshot

KEY = "s3crét 密"


def described(**settings: object) -> Capabilities:
    return capabilities(Settings.model_validate(settings, by_name=True), "tiny/llama", API_FACTS)


def test_what_is_said_follows_the_settings() -> None:
    plain = described()
    assert (plain["auth"]["required"], plain["rate_limit"]) == (False, {"enabled": False, "requests_per_minute": None})
    assert plain["parsers"] == {"tool_call": None, "reasoning": None}
    assert (plain["features"]["tools"], plain["features"]["reasoning"]) == (False, False)
    rich = described(
        api_key=KEY,
        rate_limit=30,
        enable_auto_tool_choice=True,
        reasoning_parser="qwen3",
        max_thinking_tokens=9,
        strict_model_id=True,
        enable_metrics=True,
        cache_memory_mb=0,
        timeout=7,
        max_tokens=100,
    )
    assert (rich["auth"]["required"], rich["rate_limit"]) == (True, {"enabled": True, "requests_per_minute": 30})
    assert rich["parsers"] == {"tool_call": "auto", "reasoning": "qwen3"}
    assert (rich["features"]["tools"], rich["features"]["reasoning"]) == (True, True)
    assert (rich["features"]["strict_model_id"], rich["features"]["metrics"]) == (True, True)
    assert rich["diagnostics"] == {"levels": ["basic", "deep"], "default_level": "basic"}
    limits = rich["limits"]
    assert (limits["default_timeout_seconds"], limits["default_max_tokens"]) == (7.0, 100)
    assert (limits["max_thinking_tokens"], limits["max_body_bytes"]) == (9, 16 << 20)


def test_how_reproducible_answers_are_is_said() -> None:
    plain, one, many = described(), described(deterministic=True), described(batch_invariant=True)
    assert plain["runtime"] == {"mode": "auto", "mode_threshold": 2}
    assert (one["runtime"]["mode"], described(continuous_batching=True)["runtime"]["mode"]) == ("simple", "batched")
    features = [(each["features"]["deterministic"], each["features"]["batch_invariant"]) for each in (plain, one, many)]
    assert features == [(False, False), (True, False), (False, True)]
    assert [each["policies"]["sampling"]["greedy_forced"] for each in (plain, one)] == [False, True]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, True),
        ({"cache_memory_mb": 64}, True),
        ({"cache_memory_mb": 0}, False),
        ({"cache_memory_percent": 0.0}, False),
        ({"cache_memory_percent": 0.0, "cache_memory_mb": 64}, True),
    ],
)
def test_prefixes_are_kept_unless_they_may_take_no_memory(settings: dict[str, object], kept: bool) -> None:
    assert described(**settings)["features"]["prefix_cache"] is kept


def test_the_context_contract_has_what_the_model_declares_and_what_holds() -> None:
    from dataclasses import replace

    facts = replace(API_FACTS, context_tokens=50, declared_context_tokens=256, batchable=False)
    limits = capabilities(Settings(), "tiny/llama", facts)["limits"]
    assert (limits["declared_context_tokens"], limits["effective_context_tokens"]) == (256, 50)
    assert (limits["default_max_tokens"], limits["max_concurrency"]) == (50, 1)


@pytest.mark.anyio
async def test_a_model_that_still_loads_has_no_capabilities_yet(app: Quart, desk: FakeDesk) -> None:
    desk.model_facts = None
    assert (await call(app, "GET", "/v1/capabilities")).status == 503


@pytest.mark.anyio
async def test_queue_stats_are_those_of_the_snapshot(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, queue_size=7, max_concurrency=3)
    stats = {"running": True, "queue_size": 1, "max_queue_size": 7, "active_requests": 3, "max_concurrency": 3}
    assert (await call(app, "GET", "/v1/queue/stats")).json == {"status": "ok", "queue_stats": stats}
    desk.house = snapshot(draining=True)
    stopped = cast("dict[str, object]", (await call(app, "GET", "/v1/queue/stats")).json["queue_stats"])
    assert stopped["running"] is False


# --- the client ---


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_the_client_reads_what_the_server_says(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str, path: str
) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, api_key=KEY, timeout=7)
    async with served(app) as port:
        url = f"http://127.0.0.1:{port}{path}"
        caps = await anyio.to_thread.run_sync(fetch_capabilities, url, KEY)
        with pytest.raises(CapabilitiesError, match="answered 401: The API key is missing or wrong"):
            await anyio.to_thread.run_sync(fetch_capabilities, url, "wrong")
    assert caps == orjson.loads(orjson.dumps(described(api_key=KEY, timeout=7)))
    runtime = summarize_capabilities(caps)
    assert list(runtime) == list(get_type_hints(Summary))
    assert (runtime["supports_multimodal"], runtime["default_timeout_seconds"]) == (False, 7.0)
    assert (runtime["requires_api_key"], runtime["context_tokens"]) == (True, 256)


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """Another server, that answers everything the same; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def without(*path: str) -> bytes:
    """Capabilities that lack the member at `path`."""
    caps = orjson.loads(orjson.dumps(described()))
    below = caps
    for name in path[:-1]:
        below = below[name]
    del below[path[-1]]
    return orjson.dumps(caps)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"<html>", "answered 404: it gave no reason"),
        (404, b'{"detail": "no"}', "answered 404: it gave no reason"),
        (503, b'{"error": {"message": "The model is still loading."}}', "answered 503: The model is still loading."),
        (200, b"<html>", "Expecting value"),
        (200, b"[]", "is not a Troupe server of this version: the reply is not an object"),
        (200, b"{}", "the reply lacks model"),
        (200, without("limits", "max_body_bytes"), "limits lacks max_body_bytes"),
        (200, without("policies", "repetition", "default_mode"), "repetition lacks default_mode"),
        (200, orjson.dumps(described() | {"model": 3}), "model is 3"),
        (200, orjson.dumps(described() | {"diagnostics": {"levels": [1], "default_level": ""}}), "levels is [1]"),
    ],
)
def test_a_server_that_is_not_troupe_is_one_clear_line(status: int, body: bytes, said: str) -> None:
    with answering(status, body) as url, pytest.raises(CapabilitiesError) as caught:
        fetch_capabilities(url)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_key_is_not_carried_to_where_a_server_redirects() -> None:
    with (
        answering(200, orjson.dumps(described())) as elsewhere,
        answering(302, b"", Location=elsewhere) as url,
        pytest.raises(CapabilitiesError, match="answered 302"),
    ):
        fetch_capabilities(url, KEY)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "file:///etc/passwd", "localhost:8000", "http://", "http://[::"])
def test_no_server_at_all_is_one_clear_line(url: str) -> None:
    with pytest.raises(CapabilitiesError) as caught:
        fetch_capabilities(url)
    assert "\n" not in str(caught.value)


def test_the_client_needs_nothing_but_the_standard_library() -> None:
    script = (
        "import sys, api.capabilities_client; print(*{m.split('.')[0] for m in sys.modules} - sys.stdlib_module_names)"
    )
    loaded = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True).stdout
    assert set(loaded.split()) <= {"api", "__main__"}
