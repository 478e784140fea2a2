"""When a request was let in, left the line, had been read and ended: what logs and spans say of it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from actors.messages import (
    Accepted,
    Cancelled,
    Failed,
    Finished,
    PrefillAdvanced,
    Rejected,
    Reply,
    Staged,
    TokensDecoded,
)


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a request's life, in seconds of `time.monotonic`."""

    name: str
    """`queue`, `prefill` or `decode`."""
    began_at: float
    ended_at: float

    @property
    def seconds(self) -> float:
        return self.ended_at - self.began_at


@dataclass(slots=True)
class Times:
    """Of one request, in seconds of `time.monotonic`, as its replies are read; None is not yet, or never.

    A request that goes back in line, because of an engine's death or for its memory, waits within the phase it was in.
    """

    prompt_tokens: int
    accepted_at: float | None = None
    staged_at: float | None = None
    """When it first left the line."""
    prefilled_at: float | None = None
    """When all but the last token of its prompt was first in the KV cache; that one goes with the first step of decode.
    The first tokens may come later: a reply that is sent whole is not told of each."""
    ended_at: float | None = None
    runs: int = 0
    """How often it left the line."""
    cached_tokens: int = 0
    """How much of its prompt the prefix cache served in its first run."""
    tokens: int = 0
    """How many came."""
    failure: str | None = None
    """The code of the error that it ended with."""

    def note(self, reply: Reply) -> None:
        now = time.monotonic()
        match reply:
            case Accepted():
                self.accepted_at = now
            case Staged(cached_tokens=cached):
                if not self.runs:
                    self.staged_at, self.cached_tokens = now, cached
                self.runs += 1
                self._prefilled(cached >= self.prompt_tokens - 1, now)
            case PrefillAdvanced(done=done, total=total):
                self._prefilled(done >= total, now)
            case TokensDecoded(tokens=tokens) | Finished(tokens=tokens):
                self.tokens += len(tokens)
                self._prefilled(bool(tokens), now)
        if isinstance(reply, Finished | Cancelled | Failed | Rejected):
            self.ended_at = now

    def _prefilled(self, whole: bool, now: float) -> None:
        if whole and self.prefilled_at is None:
            self.prefilled_at = now

    def left(self) -> None:
        """Nobody reads on."""
        if self.ended_at is None:
            self.ended_at = time.monotonic()

    def phases(self) -> Iterator[Phase]:
        """Those that began, in order; the last one ends with the request. None before it has ended."""
        if self.ended_at is None:
            return
        if self.accepted_at and (self.staged_at or not self.prefilled_at):
            yield Phase("queue", self.accepted_at, self.staged_at or self.ended_at)
        if self.staged_at:
            yield Phase("prefill", self.staged_at, self.prefilled_at or self.ended_at)
        if self.prefilled_at:
            yield Phase("decode", self.prefilled_at, self.ended_at)

    @property
    def seconds(self) -> dict[str, float]:
        """How long each phase took."""
        return {phase.name: phase.seconds for phase in self.phases()}
