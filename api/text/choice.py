"""One choice's way from tokens to the parts of its reply: detokenised, read, cut at stop strings, scores beside it."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from api.parsers.parts import CallClosed, CallOpened, Content, Part, joined
from api.parsers.plain import PlainReader, Reader
from api.text.codec import TextCodec
from api.text.loops import RepetitionWatch
from api.text.repetition import RepetitionTrigger
from api.text.stop_strings import StopStrings
from runtime.types import TokenOutput


@dataclass(frozen=True, slots=True)
class Reading:
    """How the text of a choice is to be read."""

    reader: Callable[[], Reader]
    """Makes one for each choice."""
    shown: frozenset[int] = frozenset()
    """Special ids whose names the reader wants to see."""
    max_thinking_tokens: int | None = None
    """Thinking beyond them is content."""
    one_call: bool = False
    """The reply ends with the first call that is complete."""
    scored_end: bool = False
    """Tell the score of the token that ends the sequence, too, although it has no text."""


PLAIN = Reading(PlainReader)
"""All text is content."""


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token whose log-probability was asked for."""

    token: TokenOutput
    offset: int
    """Where its text begins, in characters from the beginning of the choice's text."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Parts that are safe to send, and the scored tokens that are complete with them."""

    parts: tuple[Part, ...] = ()
    scored: tuple[ScoredToken, ...] = ()


class ChoiceText:
    """Takes the tokens of one sequence as they come; the pieces it gives are its text, in order.

    What may be the beginning of a character, of a marker or of a stop string is held back, and so are the scored
    tokens that it belongs to. Stop strings are looked for in content only, repetition in all of the text; what was held
    back when it is found is let through.
    """

    def __init__(
        self, codec: TextCodec, stops: Sequence[str], reading: Reading = PLAIN, watch: RepetitionWatch | None = None
    ) -> None:
        self._stop_ids = codec.stop_ids
        self._detokeniser = codec.detokeniser(reading.shown)
        self._reader = reading.reader()
        self._scored_end = reading.scored_end
        self._most_thinking = reading.max_thinking_tokens
        self._one_call = reading.one_call
        self._stops = StopStrings(stops)
        self._watch = watch
        self.repetition: RepetitionTrigger | None = None
        """What the text was ended for, if it went round in circles."""
        self._decoded = self._sent = 0
        """Characters that came out of the detokeniser, and those of them that were let through."""
        self._waiting: deque[tuple[ScoredToken, int]] = deque()
        """Scored tokens, each with the number of sent characters that makes it complete."""
        self._unclosed: set[int] = set()
        self._calls = 0
        self.tokens = 0
        """How many tokens were taken; those behind a stop string are not."""
        self.thinking_tokens = 0
        """How many of them were thinking."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found, the only call is complete, or the text repeats itself: there will be no
        more text."""
        return self._cut or self.repetition is not None

    @property
    def _cut(self) -> bool:
        """Whether the text ends before what was decoded does."""
        return self._stops.found is not None or (self._one_call and self.called)

    @property
    def stop_string(self) -> str | None:
        """The stop string that was found."""
        return self._stops.found

    @property
    def called(self) -> bool:
        """Whether tools were called, and all calls are complete."""
        return self._calls > 0 and not self._unclosed

    def feed(self, tokens: Sequence[TokenOutput]) -> Piece:
        """Take more tokens; return what is safe to send now."""
        parts: list[Part] = []
        for token in tokens:
            if not self.stopped:
                parts += self._take(token)
        piece = Piece(joined(parts), self._complete())
        return self._ended(piece) if self.repetition else piece

    def _ended(self, piece: Piece) -> Piece:
        """The last piece of a text that repeats itself, unless what was held back brings another end first."""
        trigger, self.repetition = self.repetition, None
        rest = self.finish()
        self.repetition = None if self._cut else trigger
        return Piece(joined((*piece.parts, *rest.parts)), piece.scored + rest.scored)

    def finish(self) -> Piece:
        """There are no more tokens: return all that was held back."""
        if self.stopped:
            return Piece()
        parts = [*self._read(self._detokeniser.finish()), *self._without_stops(self._reader.finish())]
        if rest := self._stops.release():
            parts.append(Content(rest))
        if not self._cut:
            self._sent = self._decoded
        scored = self._complete()
        if not self._cut:
            scored += tuple(token for token, _ in self._waiting)
            self._waiting.clear()
        return Piece(joined(parts), scored)

    def _take(self, token: TokenOutput) -> list[Part]:
        self.tokens += 1
        if token.token_id in self._stop_ids:
            if self._scored_end and token.logprob is not None:
                self._waiting.append((ScoredToken(token, self._decoded), self._decoded))
            return []
        self._count_thinking()
        start = self._decoded
        text = self._detokeniser.feed(token.token_id)
        if self._watch:
            self.repetition = self._watch.take(token.token_id, text)
        if token.logprob is not None:
            # A token with no text yet is part of the character that comes next.
            self._waiting.append((ScoredToken(token, start), max(start + len(text), start + 1)))
        return self._read(text)

    def _count_thinking(self) -> None:
        if self._reader.thinking:
            self.thinking_tokens += 1
            if self._most_thinking is not None and self.thinking_tokens > self._most_thinking:
                self.thinking_tokens -= 1
                self._reader.stop_thinking()

    def _read(self, text: str) -> list[Part]:
        self._decoded += len(text)
        parts = self._without_stops(self._reader.feed(text))
        if self.stop_string is None:
            self._sent = self._decoded - self._reader.held - self._stops.held
        return parts

    def _without_stops(self, parts: Iterable[Part]) -> list[Part]:
        """The parts up to the first stop string, less what may be the beginning of one."""
        passed: list[Part] = []
        for part in parts:
            if self._cut:
                break
            if isinstance(part, Content):
                passed += self._content(part.text)
            else:
                if rest := self._stops.release():
                    passed.append(Content(rest))
                passed.append(part)
                self._note_call(part)
        return passed

    def _content(self, text: str) -> list[Part]:
        fed = self._stops.held + len(text)
        safe = self._stops.feed(text)
        if self._cut:
            self._sent = self._decoded - self._reader.held - (fed - len(safe))
        return [Content(safe)] if safe else []

    def _note_call(self, part: Part) -> None:
        if isinstance(part, CallOpened):
            self._calls += 1
            self._unclosed.add(part.index)
        elif isinstance(part, CallClosed):
            self._unclosed.discard(part.index)

    def _complete(self) -> tuple[ScoredToken, ...]:
        """Those whose text has been sent; at a stop string also one that it cut in two."""
        done = []
        while self._waiting:
            scored, end = self._waiting[0]
            if not (scored.offset < self._sent if self._cut else end <= self._sent):
                break
            done.append(scored)
            self._waiting.popleft()
        return tuple(done)
