"""The server as a process: clients that leave, bad bodies, signals, models that are not there."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import orjson
import pytest

from tests.e2e.process import ROOT, ServerProcess

GOOD = {"model": "default", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[ServerProcess]:
    """One row at a time, so that a second request waits; small chunks, so that a prompt takes many turns."""
    with ServerProcess(str(tiny_model), "--max-concurrency", "1", "--prefill-chunk", "4") as running:
        yield running


def eventually(condition: Callable[[], object], timeout_s: float = 20) -> None:
    """Ask again and again until it is so."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came to be so"
        time.sleep(0.01)


def status(server: ServerProcess) -> dict[str, object]:
    return dict(httpx.get(f"{server.url}/v1/status").json())


def phases(server: ServerProcess) -> list[str]:
    requests = status(server)["requests"]
    assert isinstance(requests, list)
    return [each["phase"] for each in requests]


def leases(server: ServerProcess) -> int:
    return int(httpx.get(f"{server.url}/v1/actors").json()["cache"]["leases"])


def ask(server: ServerProcess, prompt: str, *, stream: bool, max_tokens: int = 1500) -> socket.socket:
    """Send a request and read nothing: the caller closes the connection."""
    host, port = server.url.removeprefix("http://").split(":")
    body = orjson.dumps(
        {"model": "default", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": stream}
    )
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    connection = socket.create_connection((host, int(port)))
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
    return connection


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("phase", ["queued", "prefill", "generation"])
def test_a_client_that_leaves_frees_its_row_and_its_lease(server: ServerProcess, phase: str, stream: bool) -> None:
    blocker = ask(server, "block", stream=True) if phase == "queued" else None
    if blocker:
        eventually(lambda: phases(server) == ["generation"])
    connection = ask(server, "word " * (1500 if phase == "prefill" else 2), stream=stream, max_tokens=400)
    with closing(connection):
        eventually(lambda: phases(server)[-1:] == [phase])
    eventually(lambda: phases(server) == (["generation"] if blocker else []))
    if blocker:
        blocker.close()
        eventually(lambda: phases(server) == [])
    eventually(lambda: leases(server) == 0)
    assert "499" in server.output()


def bad(**fields: object) -> bytes:
    return orjson.dumps(GOOD | fields)


MALFORMED = {
    "not JSON": b"{",
    "nothing": b"",
    "a list": b"[]",
    "a number": b"3",
    "invalid UTF-8": b'{"model": "\xff\xfe"}',
    "a lone surrogate": b'{"model": "default", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "NaN": b'{"model": "default", "messages": [{"role": "user", "content": "Hi"}], "temperature": NaN}',
    "infinity": b'{"model": "default", "messages": [{"role": "user", "content": "Hi"}], "temperature": 1e999}',
    "a huge integer": b'{"model": "default", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1%s}'
    % (b"0" * 400),
    "deep nesting": b'{"model": "default", "messages": %s' % (b"[" * 100_000),
    "no messages": orjson.dumps({"model": "default"}),
    "empty messages": bad(messages=[]),
    "messages a string": bad(messages="Hi"),
    "a message a string": bad(messages=["Hi"]),
    "an unknown role": bad(messages=[{"role": "wizard", "content": "Hi"}]),
    "content a number": bad(messages=[{"role": "user", "content": 3}]),
    "no content": bad(messages=[{"role": "user"}]),
    "an image": bad(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
    "an unknown field": bad(colour="red"),
    "temperature a string": bad(temperature="hot"),
    "temperature too high": bad(temperature=9),
    "max_tokens negative": bad(max_tokens=-1),
    "max_tokens a fraction": bad(max_tokens=1.5),
    "max_tokens true": bad(max_tokens=True),
    "n zero": bad(n=0),
    "n huge": bad(n=10**9),
    "top_p above one": bad(top_p=1.1),
    "stop empty": bad(stop=""),
    "stop of numbers": bad(stop=[1]),
    "logit_bias beyond the vocabulary": bad(logit_bias={"99999999": 1}),
    "logit_bias negative": bad(logit_bias={"-1": 1}),
    "logit_bias too strong": bad(logit_bias={"5": 1000}),
    "logit_bias a list": bad(logit_bias=[5]),
    "stream a string": bad(stream="yes"),
    "stream_options without stream": bad(stream_options={"include_usage": True}),
    "top_logprobs without logprobs": bad(top_logprobs=2),
    "tools": bad(tools=[{"type": "function", "function": {"name": "f"}}]),
    "twenty megabytes": bad(user="x" * 20_000_000),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_body_is_a_4xx_in_the_envelope_and_the_next_request_is_served(
    server: ServerProcess, name: str
) -> None:
    url = f"{server.url}/v1/chat/completions"
    reply = httpx.post(url, content=MALFORMED[name], headers={"Content-Type": "application/json"}, timeout=30)
    assert reply.status_code in (400, 413)
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == "invalid_request_error"
    assert httpx.post(url, json=GOOD, timeout=30).status_code == 200


def test_sigterm_lets_open_requests_end_and_turns_new_ones_away(tiny_model: Path) -> None:
    with ServerProcess(str(tiny_model)) as server:
        body = {"model": "default", "prompt": "Hi", "max_tokens": 1900, "temperature": 0, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            eventually(lambda: httpx.get(f"{server.url}/health").status_code == 503)
            assert httpx.get(f"{server.url}/health").json()["status"] == "draining"
            refused = httpx.post(f"{server.url}/v1/completions", json=body)
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) > 0
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert server.wait() == 0


def test_the_drains_deadline_bounds_it_and_the_stream_ends_with_an_error(tiny_model: Path) -> None:
    with ServerProcess(str(tiny_model), "--drain-timeout", "0.2") as server:
        body = {"model": "default", "prompt": "Hi", "max_tokens": 2000, "stream": True, "logprobs": 5}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            last = [line for line in lines if line][-1]
        assert "error" in orjson.loads(last.removeprefix("data: "))
        assert server.wait() == 0


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_client_that_reads_nothing_does_not_keep_the_server_open(tiny_model: Path, loop: str) -> None:
    with ServerProcess(str(tiny_model), "--drain-timeout", "0.2", "--event-loop", loop) as server:
        host, port = server.url.removeprefix("http://").split(":")
        body = orjson.dumps(GOOD | {"max_tokens": 1500, "n": 8, "logprobs": True, "top_logprobs": 20, "stream": True})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.sendall(head + body)
            connection.recv(100)
            eventually(lambda: "generation" in phases(server))
            server.process.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0


def test_a_second_signal_quits_at_once(tiny_model: Path) -> None:
    with ServerProcess(str(tiny_model)) as server, closing(ask(server, "Hi", stream=True, max_tokens=1900)):
        eventually(lambda: phases(server) == ["generation"])
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx.get(f"{server.url}/health").status_code == 503)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait(5) == 128 + signal.SIGTERM


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "cli.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_model_that_is_not_there_is_one_line_and_status_one(tmp_path: Path) -> None:
    done = run("serve", str(tmp_path / "nowhere"), "--port", "0")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere" in done.stderr


def test_weights_that_break_on_loading_are_one_line_and_status_one(tiny_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = run("serve", str(broken), "--port", "0")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("troupe: ")


def test_a_port_in_use_is_one_line_and_status_one(server: ServerProcess, tiny_model: Path) -> None:
    done = run("serve", str(tiny_model), "--port", server.url.rsplit(":", 1)[1])
    assert done.returncode == 1
    assert "cannot listen" in done.stderr.splitlines()[-1]
