"""A prompt on its way into the KV cache."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from actors import messages as m
from actors.policies.chunks import Chunks
from actors.policies.prefix import common_prefix
from actors.policies.prefix_cache import WORTH_TOKENS
from actors.policies.worth_waiting import worth_waiting
from runtime.engine.commands import PrefillSlice
from runtime.types import KvCheckpoint, TokenOutput


@dataclass(slots=True)
class Prompt:
    """A sequence on its way into the KV cache. All of its ids but the last have to get there: the last one is fed in
    the first decode step."""

    sequence: m.Sequence
    ids: tuple[int, ...]
    """Its history, or the beginning of it that is computed as a prompt is."""
    sent: int
    """Leading ids that are in the cache or on their way there."""
    done: int
    """Those the engine has answered for."""
    scores: list[TokenOutput] | None
    """Of the leading ids, as far as the engine has told them; None if the prompt is not to be scored."""

    checkpoints: deque[KvCheckpoint]
    """Those not reached yet."""
    storing: deque[int] = field(default_factory=deque)
    """Those the engine was told to store, and CacheManager has not handled; how many ids each holds."""
    found: deque[m.PrefixFound] = field(default_factory=deque)
    """The engine was told to start it anew with these, one after the other, and has not answered."""
    behind: list[tuple["Prompt", int]] = field(default_factory=list)
    """Older ones that begin the same, with how many ids they share."""

    @property
    def wanted(self) -> int:
        return len(self.ids) - 1

    @property
    def next_stop(self) -> int:
        """As far as a turn may take it: a checkpoint must be kept before anything is added to it."""
        return self.checkpoints[0].tokens if self.checkpoints else self.wanted

    def reached(self) -> KvCheckpoint | None:
        """The checkpoint that it has come to just now."""
        return self.checkpoints.popleft() if self.checkpoints and self.checkpoints[0].tokens == self.sent else None

    def line_up(self, older: Iterable["Prompt"]) -> None:
        """From now on it waits for those of the older ones that are about to spare it work. One that is to be scored,
        or computed afresh, is never spared any."""
        request = self.sequence.request
        if self.scores is not None or request.fresh:
            return
        for other in older:
            if other.stops and other.sequence.request.cache_salt == request.cache_salt:
                shared = min(common_prefix(other.ids, self.ids), self.wanted)
                if shared - self.sent >= WORTH_TOKENS:
                    self.behind.append((other, shared))

    @property
    def stops(self) -> tuple[int, ...]:
        """Behind so many ids each it is kept, and CacheManager has yet to tell others of it."""
        return (*self.storing, *(checkpoint.tokens for checkpoint in self.checkpoints))

    def held_up(self, *, trimmable: bool) -> bool:
        """Whether it takes no part in a turn now, because more of it may soon be had without computing it."""
        return bool(self.found) or any(
            worth_waiting(sent=self.sent, shared=shared, ahead=other.sent, stops=other.stops, trimmable=trimmable)
            for other, shared in self.behind
        )

    def give_up(self) -> None:
        """It leaves before it is done: nobody is to wait for it any more."""
        self.checkpoints.clear()
        self.storing.clear()

    def is_spared_by(self, found: m.PrefixFound) -> bool:
        """Whether that is more than it has, or is about to."""
        return found.tokens > (self.found[-1].tokens if self.found else self.sent)

    def start_anew(self, found: m.PrefixFound) -> None:
        """The engine has so many ids now."""
        self.sequence = replace(self.sequence, cached_tokens=found.tokens, hit_type=found.hit_type)
        self.sent = self.done = found.tokens
        while self.checkpoints and self.checkpoints[0].tokens <= self.sent:
            self.checkpoints.popleft()

    def take(self, share: int, chunks: Chunks) -> list[PrefillSlice]:
        """The next `share` ids for the engine."""
        start, self.sent = self.sent, self.sent + share
        return [self._slice(first, stop) for first, stop in chunks.cuts(start, self.sent)]

    def _slice(self, start: int, stop: int) -> PrefillSlice:
        sequence_id = self.sequence.sequence_id
        if self.scores is None:
            return PrefillSlice(sequence_id, self.ids[start:stop])
        top_logprobs = self.sequence.request.score_prompt or 0
        return PrefillSlice(sequence_id, self.ids[start:stop], self.ids[start + 1 : stop + 1], top_logprobs)

    def usage(self) -> m.Usage:
        request = self.sequence.request
        produced = len(self.sequence.history) - len(request.prompt_ids)
        return m.Usage(len(request.prompt_ids), self.sequence.served_tokens, produced)
