"""The lightest client there is: it must not be what is measured."""

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio
import anyio.abc
import orjson

TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')
TEXT = re.compile(rb'"(?:content|text|reasoning)":\s*"[^"]')
"""A chunk that holds text, or some other model output; the role chunk and the last ones do not."""
CONTENT = re.compile(rb'"content":\s*("(?:[^"\\]|\\.)*")')
Message = Mapping[str, str]
"""One of a chat: `role` and `content`."""


def user(content: str) -> Message:
    return {"role": "user", "content": content}


@dataclass(slots=True)
class Streamed:
    """What came of one streamed request; times are seconds of one clock."""

    started_at: float
    arrivals: list[float] = field(default_factory=list)
    """When each read that held text came in."""
    ended_at: float = 0.0
    tokens: int = 0
    """Output tokens, as the server counts them."""
    error: str = ""
    received: bytearray = field(default_factory=bytearray)
    """All that came, as it came."""

    @property
    def text(self) -> str:
        """What a chat's reply says."""
        return "".join(orjson.loads(found) for found in CONTENT.findall(self.received))

    @property
    def first_s(self) -> float:
        """Time to the first text."""
        return self.arrivals[0] - self.started_at if self.arrivals else float("inf")

    @property
    def tokens_per_s(self) -> float:
        """From its first token on; a stream of one token has no speed."""
        seconds = self.ended_at - self.arrivals[0] if self.arrivals else 0.0
        return (self.tokens - 1) / seconds if seconds else 0.0

    @property
    def gaps(self) -> list[float]:
        """Seconds between one arrival and the next."""
        return [later - earlier for earlier, later in zip(self.arrivals, self.arrivals[1:], strict=False)]


class Target:
    """A server to load."""

    def __init__(self, url: str, model: str = "default") -> None:
        parts = urlsplit(url)
        self.name = url
        self.model = model
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80

    async def stream(self, prompt: str, max_tokens: int, watch: "Streamed | None" = None) -> Streamed:
        """Stream one greedy completion to its end. `watch`, if given, is filled while it runs."""
        body = {"prompt": prompt, "max_tokens": max_tokens}
        return await self._stream("/v1/completions", body, watch or Streamed(time.perf_counter()))

    async def chat(
        self, messages: Sequence[Message], max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Streamed:
        """Stream one greedy reply to its end; JSON of that schema, if one is given."""
        body: dict[str, object] = {"messages": messages, "max_tokens": max_tokens}
        if schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        return await self._stream("/v1/chat/completions", body, Streamed(time.perf_counter()))

    async def _stream(self, path: str, body: dict[str, object], result: Streamed) -> Streamed:
        body |= {"model": self.model, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
        async with await anyio.connect_tcp(self._host, self._port) as connection:
            await connection.send(self._post(path, body))
            async for data in _arriving(connection):
                if TEXT.search(data):
                    result.arrivals.append(time.perf_counter())
                result.received += data
        result.ended_at = time.perf_counter()
        tail = result.received[-2000:]
        found = TOKENS.findall(tail)
        if found and b"[DONE]" in tail:
            result.tokens = int(found[-1])
        else:
            result.error = tail[-300:].decode(errors="replace")
        return result

    async def get(self, path: str) -> tuple[float, int]:
        """Seconds that a GET took, and its status."""
        started_at = time.perf_counter()
        request = f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nConnection: close\r\n\r\n"
        async with await anyio.connect_tcp(self._host, self._port) as connection:
            await connection.send(request.encode())
            answer = b"".join([data async for data in _arriving(connection)])
        return time.perf_counter() - started_at, int(answer.split(b" ", 2)[1])

    def _post(self, path: str, body: dict[str, object]) -> bytes:
        payload = orjson.dumps(body)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + payload


async def _arriving(connection: anyio.abc.SocketStream) -> AsyncIterator[bytes]:
    try:
        while True:
            yield await connection.receive(1 << 16)
    except anyio.EndOfStream:
        return
