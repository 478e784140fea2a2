"""Reads the stream of snapshots, for as long as it takes: connects, connects again, and says what is wrong."""

import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import msgspec

from actors.snapshots import HouseSnapshot
from runtime.errors import SettingsError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 2.0
"""Between two attempts to connect: twice as long each time."""
REFUSED_WAIT_S = 10.0
"""After an answer that will hardly be another one soon, such as 401."""
LONGEST_TOLD_WAIT_S = 60.0
"""The most that is done about a Retry-After."""
SILENCE_S = 10.0
"""What a snapshot may be late."""
SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 0.05, 60.0
"""What GET /v1/actors takes for an interval."""
LARGEST_FRAME = 1 << 26


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no connection, and why; another attempt follows."""

    why: str


News = HouseSnapshot | Lost


class Refused(Exception):
    """The server answered, but not with snapshots."""

    def __init__(self, why: str, wait_s: float = REFUSED_WAIT_S) -> None:
        super().__init__(why)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Server:
    """Whose dashboard it is."""

    url: str
    """Without a slash at its end."""
    api_key: str | None = None
    interval_s: float = 1.0

    def client(self) -> httpx.AsyncClient:
        """Proxies are not asked: a server is watched from near."""
        # In bytes, for httpx takes text for ASCII and a key may be anything.
        headers = {b"Authorization": f"Bearer {self.api_key}".encode()} if self.api_key else {}
        verify = ssl.create_default_context() if self.url.startswith("https:") else False
        timeout = httpx.Timeout(5.0, read=self.interval_s + SILENCE_S)
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout, verify=verify, trust_env=False)


def server_url(text: str) -> str:
    """`host:port`, with http:// or https:// or without, and whatever of a path is before /v1.

    Raises:
        SettingsError: it is no such thing.
    """
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
    except httpx.InvalidURL as error:
        raise SettingsError(f"URL: {text!r} is none: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(f"URL: {text!r} does not name a server, such as http://127.0.0.1:8000")
    return str(url.copy_with(query=None, fragment=None)).rstrip("/").removesuffix("/v1")


def interval(text: str) -> float:
    """Seconds, as a server takes them.

    Raises:
        SettingsError: it would not take these.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not SHORTEST_INTERVAL_S <= seconds <= LONGEST_INTERVAL_S:
        raise SettingsError(f"--interval: must be {SHORTEST_INTERVAL_S:g} to {LONGEST_INTERVAL_S:g} seconds")
    return seconds


async def follow(server: Server, tell: Callable[[News], None]) -> None:
    """Tell every snapshot as it comes, and every loss of the connection; never return.

    A house that drains ends its stream after each snapshot; that is no loss as long as it answers.
    """
    async with server.client() as client:
        wait_s = FIRST_WAIT_S
        while True:
            last: HouseSnapshot | None = None
            try:
                async for last in snapshots(client, server.interval_s):
                    tell(last)
                if last and last.admitter and last.admitter.draining:
                    await anyio.sleep(server.interval_s)
                    continue
                lost, refused_s = "the server closed the connection", 0.0
            except (httpx.HTTPError, ssl.SSLError) as error:
                lost, refused_s = _why(error), 0.0
            except Refused as error:
                lost, refused_s = str(error), error.wait_s
            tell(Lost(lost))
            wait_s = FIRST_WAIT_S if last else wait_s
            await anyio.sleep(max(wait_s, refused_s))
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def _why(error: Exception) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return "no answer"
    if isinstance(error, httpx.TimeoutException):
        return "the server has been silent for too long"
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        return "the connection broke"
    return "nobody listens there" if isinstance(error, httpx.ConnectError) else str(error) or type(error).__name__


async def snapshots(client: httpx.AsyncClient, interval_s: float) -> AsyncIterator[HouseSnapshot]:
    """One connection's snapshots, to its end."""
    parameters = {"stream": "true", "interval": f"{interval_s:g}"}
    async with client.stream("GET", "/v1/actors", params=parameters) as response:
        check(response)
        buffer = b""
        async for data in response.aiter_bytes():
            *frames, buffer = (buffer + data).split(b"\n\n")
            if len(buffer) > LARGEST_FRAME:
                raise Refused("that is not a Troupe server")
            for frame in frames:
                if frame.startswith(b"data: "):
                    yield decoded(frame.removeprefix(b"data: "))


def check(response: httpx.Response) -> None:
    """Raise Refused unless snapshots follow."""
    code = response.status_code
    if code == 200 and response.headers.get("content-type", "").startswith("text/event-stream"):
        return
    if code == 401:
        given = "authorization" in response.request.headers
        raise Refused("its key is another one" if given else "it wants a key (--api-key or TROUPE_API_KEY)")
    if code in (429, 503):
        told = response.headers.get("retry-after", "")
        wait_s = min(float(told), LONGEST_TOLD_WAIT_S) if told.isdecimal() else LONGEST_WAIT_S
        raise Refused("it is asked too often (429)" if code == 429 else "it is not ready (503)", wait_s)
    if code >= 500:
        raise Refused(f"it answers with {code}", LONGEST_WAIT_S)
    raise Refused(f"that is not a Troupe server (GET /v1/actors is {code})")


def decoded(data: bytes) -> HouseSnapshot:
    """A snapshot as the server wrote it. What it has besides is left alone, so that a newer server can be watched.

    JSON has no infinity: where a number that must be there is null, that is what it was.
    """
    try:
        fields: Any = msgspec.json.decode(data)
        facts = fields.get("facts")
        if facts and facts.get("padding_ratio", 0) is None:
            facts["padding_ratio"] = float("inf")
        return msgspec.convert(fields, HouseSnapshot)
    except (msgspec.MsgspecError, AttributeError) as error:
        raise Refused(f"it is another version of Troupe, or none ({error})") from None


async def cancel(server: Server, request_id: str) -> str:
    """Have the server end a request; what came of it, in a few words."""
    try:
        async with server.client() as client:
            response = await client.delete(f"/v1/requests/{quote(request_id, safe='')}")
    except (httpx.HTTPError, ssl.SSLError) as error:
        return f"not cancelled: {_why(error)}"
    if response.is_success:
        return "cancelled"
    if b'"request_not_found"' in response.content:
        return "it has ended by itself"
    return f"not cancelled: the server answers with {response.status_code}"
