"""What an actor is: a mailbox, a plain function that handles one message, and a snapshot of its state."""

from abc import ABC, abstractmethod
from math import inf
from typing import Generic, Protocol, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from actors.snapshots import ActorSnapshot, MailboxSnapshot
from runtime.errors import MailboxOverflow

M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)


class Ref(Protocol[M_contra]):
    """All that one actor knows of another."""

    def tell(self, message: M_contra) -> None:
        """Put `message` in its mailbox, at once and without waiting.

        Raises:
            MailboxOverflow: more mail than credits allow; the teller crashes.
        """
        ...


class Actor(ABC, Generic[M]):
    """Reacts to one message at a time. No handler awaits, so nothing interleaves inside an actor and a
    snapshot taken between two handlers is consistent. Errors are not caught here: supervisors restart."""

    @abstractmethod
    def receive(self, message: M) -> None:
        """Handle `message`: change the actor's own state, tell others, submit engine commands; return."""

    @abstractmethod
    def snapshot(self) -> ActorSnapshot:
        """The state worth showing, as plain values."""


class Mailbox(Generic[M]):
    """A bounded channel that outlives the actor behind it: Refs stay valid across restarts."""

    def __init__(self, name: str, capacity: int | None) -> None:
        """`capacity` None is without bound: for mail from outside, which no credits limit."""
        self.name = name
        self._capacity = capacity
        self._handled = 0
        self._send: MemoryObjectSendStream[M]
        self._receive: MemoryObjectReceiveStream[M]
        self._send, self._receive = anyio.create_memory_object_stream[M](inf if capacity is None else capacity)

    def tell(self, message: M) -> None:
        """See Ref. After `close` mail is dropped: the house is shutting down."""
        try:
            self._send.send_nowait(message)
        except anyio.WouldBlock:
            raise MailboxOverflow(f"mailbox {self.name} holds {self._capacity} messages") from None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    async def serve(self, actor: Actor[M]) -> None:
        """Hand every message to `actor`, one at a time, until the mailbox is closed or the actor raises."""
        async for message in self._receive:
            actor.receive(message)
            self._handled += 1

    def clear(self) -> None:
        """Drop all mail: it was meant for an earlier life."""
        while self._receive.statistics().current_buffer_used:
            self._receive.receive_nowait()

    def close(self) -> None:
        self._send.close()
        self._receive.close()

    def snapshot(self) -> MailboxSnapshot:
        return MailboxSnapshot(
            depth=self._receive.statistics().current_buffer_used,
            capacity=self._capacity,
            handled=self._handled,
        )
