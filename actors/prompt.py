"""A prompt on its way into the KV cache."""

from collections import deque
from dataclasses import dataclass, replace

from actors import messages as m
from runtime.engine.commands import PrefillSlice
from runtime.types import KvCheckpoint, TokenOutput


@dataclass(slots=True)
class Prompt:
    """A sequence on its way into the KV cache. All of its history but the last id has to get there: the last
    one is fed in the first decode step."""

    sequence: m.Sequence
    sent: int
    """Leading ids of the history that are in the cache or on their way there."""
    done: int
    """Those the engine has answered for."""
    scores: list[TokenOutput] | None
    """Of the leading ids, as far as the engine has told them; None if the prompt is not to be scored."""

    checkpoints: deque[KvCheckpoint]
    """Those not reached yet."""
    found: m.PrefixFound | None = None
    """The engine was told to start it anew with this, and has not answered."""

    @property
    def wanted(self) -> int:
        return len(self.sequence.history) - 1

    @property
    def next_stop(self) -> int:
        """As far as a turn may take it: a checkpoint must be kept before anything is added to it."""
        return self.checkpoints[0].tokens if self.checkpoints else self.wanted

    def reached(self) -> KvCheckpoint | None:
        """The checkpoint that it has come to just now."""
        return self.checkpoints.popleft() if self.checkpoints and self.checkpoints[0].tokens == self.sent else None

    def start_anew(self, found: m.PrefixFound) -> None:
        """The engine has so many ids now."""
        self.sequence = replace(self.sequence, cached_tokens=found.tokens, hit_type=found.hit_type)
        self.sent = self.done = found.tokens
        while self.checkpoints and self.checkpoints[0].tokens <= self.sent:
            self.checkpoints.popleft()

    def take(self, share: int) -> PrefillSlice:
        """The next `share` ids for the engine."""
        start, self.sent = self.sent, self.sent + share
        sequence_id, history = self.sequence.sequence_id, self.sequence.history
        if self.scores is None:
            return PrefillSlice(sequence_id, history[start : self.sent])
        targets = history[start + 1 : self.sent + 1]
        top_logprobs = self.sequence.request.score_prompt or 0
        return PrefillSlice(sequence_id, history[start : self.sent], targets, top_logprobs)

    def usage(self) -> m.Usage:
        request = self.sequence.request
        produced = len(self.sequence.history) - len(request.prompt_ids)
        return m.Usage(len(request.prompt_ids), self.sequence.served_tokens, produced)
