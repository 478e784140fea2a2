"""One choice's way from tokens to text: detokenised, cut at stop strings, each log-probability beside its text."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from api.text.codec import TextCodec
from api.text.stop_strings import StopStrings
from runtime.types import TokenOutput


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token whose log-probability was asked for."""

    token: TokenOutput
    offset: int
    """Where its text begins, in characters from the beginning of the choice's text."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is safe to send, and the scored tokens that are complete with it."""

    text: str
    scored: tuple[ScoredToken, ...] = ()


class ChoiceText:
    """Takes the tokens of one sequence as they come; the pieces it gives are its text, in order.

    What may be the beginning of a character or of a stop string is held back, and so are the scored tokens
    that it belongs to.
    """

    def __init__(self, codec: TextCodec, stops: Sequence[str]) -> None:
        self._stop_ids = codec.stop_ids
        self._detokeniser = codec.detokeniser()
        self._stops = StopStrings(stops)
        self._decoded = self._sent = 0
        """Characters that came out of the detokeniser, and those of them that were let through."""
        self._waiting: deque[tuple[ScoredToken, int]] = deque()
        """Scored tokens, each with the number of sent characters that makes it complete."""
        self.tokens = 0
        """How many tokens were taken; those behind a stop string are not."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found: there will be no more text."""
        return self._stops.found

    def feed(self, tokens: Sequence[TokenOutput]) -> Piece:
        """Take more tokens; return what is safe to send now."""
        text = "".join(self._take(token) for token in tokens)
        self._sent += len(text)
        return Piece(text, self._complete())

    def finish(self) -> Piece:
        """There are no more tokens: return all that was held back."""
        text = self._stops.feed(self._detokeniser.finish()) + self._stops.finish()
        self._sent += len(text)
        scored = self._complete()
        if not self.stopped:
            scored += tuple(token for token, _ in self._waiting)
            self._waiting.clear()
        return Piece(text, scored)

    def _take(self, token: TokenOutput) -> str:
        if self.stopped:
            return ""
        self.tokens += 1
        if token.token_id in self._stop_ids:
            return ""
        start = self._decoded
        text = self._detokeniser.feed(token.token_id)
        self._decoded += len(text)
        if token.logprob is not None:
            # A token with no text yet is part of the character that comes next.
            self._waiting.append((ScoredToken(token, start), max(self._decoded, start + 1)))
        return self._stops.feed(text)

    def _complete(self) -> tuple[ScoredToken, ...]:
        """Those whose text has been sent; at a stop string also one that it cut in two."""
        done = []
        while self._waiting:
            scored, end = self._waiting[0]
            if not (scored.offset < self._sent if self.stopped else end <= self._sent):
                break
            done.append(scored)
            self._waiting.popleft()
        return tuple(done)
