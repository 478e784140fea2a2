"""Greedy completions of token ids, token by token, and whether they are what a server without cache says."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import httpx
import orjson

from tests.tiny import VOCAB

Ids = tuple[int, ...]
PATIENCE_S = 300.0
TIE = 1e-4
"""Sums in float32 depend on the shapes that they are made in. Where the two likeliest tokens are as close as this, in
natural logarithms of probability, either may come."""
FIRST_TEXT_ID = 3
"""The ids below belong to special tokens, which the tiny models never write."""


class Refused(Exception):
    """The server did not take the request."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"{response.status_code}: {response.text}")
        self.status = response.status_code
        self.retry_after = response.headers.get("retry-after")


@dataclass(frozen=True, slots=True)
class Said:
    """A completion; a short one if the client left."""

    tokens: tuple[str, ...]
    """By name. No two of the tests' tokens have the same."""
    gaps: tuple[float, ...]
    """How much likelier each of them was than the next best."""
    cached_tokens: int = 0
    """How much of the prompt was in the cache; only told at the end."""


class Server:
    """A server with the tests' tokeniser, asked over HTTP by any number of threads."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
        self._client = httpx.Client(base_url=url, timeout=PATIENCE_S, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, prompt: Ids, max_tokens: int, *, salt: str = "", leave_after: int | None = None) -> Said:
        """A greedy completion, streamed; the client leaves after so many tokens.

        Raises:
            Refused: it was not taken.
            AssertionError: it broke off.
        """
        body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": 2, "stream": True}
        body |= {"stream_options": {"include_usage": True}} | ({"cache_salt": salt} if salt else {})
        with self._client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                response.read()
                raise Refused(response)
            return _listen(response, leave_after)

    def names(self) -> dict[str, int]:
        """The ids of all tokens that are text, by their names."""
        ids = range(FIRST_TEXT_ID, VOCAB)
        body = {"prompt": list(ids), "max_tokens": 0, "echo": True, "logprobs": 0}
        reply = self._client.post("/v1/completions", json=body).raise_for_status().json()
        names = dict(zip(reply["choices"][0]["logprobs"]["tokens"], ids, strict=True))
        assert len(names) == len(ids)
        return names

    def cache(self) -> dict[str, object]:
        """`cache` of /v1/status."""
        found = self.status()["cache"]
        assert isinstance(found, dict)
        return found

    def status(self) -> dict[str, object]:
        """/v1/status."""
        reply: dict[str, object] = self._client.get("/v1/status").raise_for_status().json()
        return reply

    def queue(self) -> dict[str, object]:
        """`queue_stats` of /v1/queue/stats."""
        reply: dict[str, dict[str, object]] = self._client.get("/v1/queue/stats").raise_for_status().json()
        return reply["queue_stats"]

    def clear_cache(self) -> None:
        self._client.delete("/v1/cache").raise_for_status()


def _listen(response: httpx.Response, leave_after: int | None) -> Said:
    tokens: list[str] = []
    gaps: list[float] = []
    cached_tokens = 0
    chunks = _chunks(response)
    while leave_after is None or len(tokens) < leave_after:
        chunk = next(chunks, None)
        if chunk is None:
            break
        for choice in chunk["choices"]:
            if scored := choice["logprobs"]:
                tokens += scored["tokens"]
                gaps += map(_gap, scored["top_logprobs"])
        if usage := chunk.get("usage"):
            cached_tokens = usage["prompt_tokens_details"]["cached_tokens"]
    return Said(tuple(tokens), tuple(gaps), cached_tokens)


def _chunks(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """What a stream holds, up to its proper end."""
    for event in _events(response):
        if event == b"data: [DONE]":
            return
        chunk = orjson.loads(event.removeprefix(b"data: "))
        assert "error" not in chunk, chunk
        yield chunk
    raise AssertionError("a stream ended without [DONE]")


def _events(response: httpx.Response) -> Iterator[bytes]:
    """All but comments, which keep a quiet connection alive. (httpx would take characters such as U+2028, which a model
    of random weights writes, for ends of lines.)"""
    rest = b""
    for data in response.iter_raw():
        *events, rest = (rest + data).split(b"\n\n")
        yield from (event for event in events if not event.startswith(b":"))


def _gap(top: dict[str, float]) -> float:
    best, *others = sorted(top.values(), reverse=True)
    return best - others[0] if others else float("inf")


class Reference:
    """What a server without cache says to each prompt alone, in so many tokens; every one is asked once."""

    def __init__(self, server: Server, tokens: int) -> None:
        self.tokens = tokens
        self.names = server.names()
        self._server = server
        self._said: dict[Ids, Said] = {}
        self._lock = threading.Lock()

    def says(self, prompt: Ids) -> Said:
        with self._lock:
            if prompt not in self._said:
                self._said[prompt] = self._server.ask(prompt, self.tokens)
            return self._said[prompt]

    def ids(self, said: Said) -> Ids:
        return tuple(self.names[name] for name in said.tokens)


class Verdict(StrEnum):
    SAME = "the same"
    TIE = "a tie"
    WRONG = "wrong"


def judge(said: Said, truth: Said, least: int) -> Verdict:
    """Whether `said`, of which there should be at least so many tokens, is how `truth` begins."""
    for mine, its, gap in zip(said.tokens, truth.tokens, truth.gaps, strict=False):
        if mine != its:
            return Verdict.TIE if gap < TIE else Verdict.WRONG
    return Verdict.SAME if least <= len(said.tokens) <= len(truth.tokens) else Verdict.WRONG
