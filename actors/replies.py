"""The way back to a client: bounded, never blocking, with places kept for what must not be lost."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio

from actors.messages import Finished, LastWord, PromptScored, Reply, TokensDecoded
from runtime.types import RequestId


class ReplySink:
    """One request's way back to its client; the actor that owns the request tells it what happens.

    It is also the record of what was handed over: `delivered` is where the sequence goes on after an engine
    restart, and `ended` says that nobody may speak any more.
    """

    def __init__(self, put: Callable[[Reply], None], capacity: int) -> None:
        self._put = put
        self._capacity = capacity
        self.unread = 0
        self.taken = 0
        """How many replies the client has taken so far; standing still with some unread is a stall."""
        self.delivered: list[int] = []
        """Output ids handed over, in order."""
        self.scored = False
        """Whether the prompt's scores were handed over."""
        self.ended = False

    def offer(self, reply: Reply) -> bool:
        """Send `reply` unless the client is `capacity` replies behind; say whether it was taken."""
        if self.ended or self.unread >= self._capacity:
            return False
        self._send(reply)
        return True

    def prompt_scored(self, reply: PromptScored) -> None:
        """Send the prompt's scores, for which there is always room; a second time, nothing."""
        if not self.ended and not self.scored:
            self.scored = True
            self._send(reply)

    def last_word(self, reply: LastWord) -> None:
        """Send the terminal reply, for which there is always room; a second one is a bug."""
        if self.ended:
            raise RuntimeError(f"{reply.request_id} already had its last word")
        self._send(reply)
        self.ended = True

    def _send(self, reply: Reply) -> None:
        if isinstance(reply, TokensDecoded | Finished):
            self.delivered += [token.token_id for token in reply.tokens]
        self.unread += 1
        self._put(reply)

    def took(self) -> None:
        """The client took one reply."""
        self.unread -= 1
        self.taken += 1


class Replies:
    """All replies to one HTTP call, in the order they were said; ends after the last word of every request.

    It is its own iterator. Close it in the end, or use it as a context manager.
    """

    def __init__(self, capacity: int = 64) -> None:
        self._capacity = capacity
        self._sinks: dict[RequestId, ReplySink] = {}
        self._open = 0
        """Requests whose last word was not taken yet."""
        # Bounded by the sinks: `capacity` replies, a prompt's scores and one last word each.
        self._send, self._receive = anyio.create_memory_object_stream[Reply](float("inf"))

    def sink(self, request_id: RequestId) -> ReplySink:
        """The way back for one request of this call."""
        self._open += 1
        self._sinks[request_id] = sink = ReplySink(self._put, self._capacity)
        return sink

    def _put(self, reply: Reply) -> None:
        try:
            self._send.send_nowait(reply)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # The client has left; its Cancel is on the way.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Reply:
        """The next reply. Being cancelled while it waits loses nothing."""
        if not self._open:
            raise StopAsyncIteration
        reply = await self._receive.receive()
        self._sinks[reply.request_id].took()
        self._open -= isinstance(reply, LastWord)
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hear no more; what is still said is dropped."""
        self._receive.close()
        self._send.close()
