"""Chooses one token for every row of a batch, each by its own settings, in a few calls for all of them."""

from collections.abc import Sequence

import mlx.core as mx

from runtime.mlx.choice import Choice, Logprobs
from runtime.mlx.draw import Draws, likeliest, log_softmax, uniform
from runtime.mlx.edits import Edits, RowHistory
from runtime.mlx.grammar import Mask
from runtime.types import Sampling


class Sampler:
    """The sampling settings of one composition of the batch, as vectors; make a new one when it changes."""

    def __init__(self, rows: Sequence[RowHistory], vocab_size: int) -> None:
        settings = [row.sampling for row in rows]
        self._seeds = [each.seed for each in settings]
        self._edited = [i for i, each in enumerate(settings) if _edits(each)]
        self._drawn = [i for i, each in enumerate(settings) if not _greedy(each)]
        self._asked = tuple(i for i, each in enumerate(settings) if each.top_logprobs is not None)
        self._most_asked = max((settings[i].top_logprobs or 0 for i in self._asked), default=0)
        if self._edited:
            self._edits = Edits([rows[i] for i in self._edited], vocab_size)
        if self._drawn:
            self._draws = Draws([settings[i] for i in self._drawn])

    def observe(self, tokens: mx.array) -> None:
        """Note the token that every row was given since the sampler was made or last told; shape [batch]."""
        if self._edited:
            self._edits.observe(tokens[mx.array(self._edited)])

    def sample(self, logits: mx.array, positions: Sequence[int], mask: Mask | None = None) -> Choice:
        """Choose every row's next token; nothing is computed yet.

        Args:
            logits: shape [batch, vocabulary].
            positions: per row, how many output tokens come before the one to choose.
            mask: what the rows that have a grammar may choose from. Log-probabilities are those without it.
        """
        logits = logits.astype(mx.float32)
        if self._edited:
            edited = mx.array(self._edited)
            logits[edited] = self._edits.apply(logits[edited])
        allowed = mask.apply(logits) if mask else logits
        tokens = mx.argmax(allowed, axis=-1)
        if self._drawn:
            drawn = mx.array(self._drawn)
            numbers = mx.array([uniform(self._seeds[i], positions[i]) for i in self._drawn])
            tokens[drawn] = self._draws.draw(allowed[drawn], numbers).astype(tokens.dtype)
        return Choice(tokens, (self._logprobs(logits, tokens),) if self._asked else ())

    def _logprobs(self, logits: mx.array, tokens: mx.array) -> Logprobs:
        asked = mx.array(self._asked)
        logprobs = log_softmax(logits[asked])
        chosen = mx.take_along_axis(logprobs, tokens[asked][:, None], axis=-1)[:, 0]
        top_ids = likeliest(logprobs, self._most_asked)
        return Logprobs(self._asked, chosen, top_ids, mx.take_along_axis(logprobs, top_ids, axis=-1))


def _greedy(sampling: Sampling) -> bool:
    return sampling.temperature == 0 or sampling.top_k == 1


def _edits(sampling: Sampling) -> bool:
    penalties = (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty - 1)
    return bool(sampling.logit_bias) or any(penalties)
