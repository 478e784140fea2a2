"""The running batch: rows join and leave between steps, and the next step starts before the last one is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from runtime.engine.commands import DecodedRow, JoinRow
from runtime.mlx.choice import Choice
from runtime.mlx.edits import RowHistory
from runtime.mlx.sampler import Sampler
from runtime.types import FinishReason, SequenceId

Caches = list[Any]
"""One mlx-lm cache object per layer."""


@dataclass(slots=True)
class Row:
    """One sequence in the batch."""

    spec: JoinRow
    history: list[int]
    """Prompt and output ids that were handed out; the choice under way is not among them."""

    @property
    def produced(self) -> int:
        return len(self.history) - self.spec.prompt_tokens

    def finish(self, token_id: int) -> FinishReason | None:
        """Why `token_id`, the last of the history, ends the row; None if it does not."""
        if token_id in self.spec.sampling.stop_ids:
            return FinishReason.STOP
        return FinishReason.LENGTH if self.produced >= self.spec.sampling.max_tokens else None

    def for_sampler(self) -> RowHistory:
        split = self.spec.prompt_tokens
        return RowHistory(self.spec.sampling, self.history[:split], self.history[split:])


class DecodeBatch:
    """Rows with their caches merged (mlx-lm's batch caches), and the choice under way for each of them."""

    def __init__(self, model: Module, vocab_size: int) -> None:
        self._model = model
        self._vocab_size = vocab_size
        self._rows: list[Row] = []
        self._caches: Caches = []
        self._sampler = Sampler([], vocab_size)
        self._choice: Choice | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def join(self, specs: Sequence[JoinRow], caches: Sequence[Caches]) -> None:
        """Take rows in, each with a cache that holds all of its history but the last id.

        Their first step is taken at once, in a forward pass of their own: from then on every row of the batch
        has a choice under way.
        """
        rows = [Row(spec, list(spec.history)) for spec in specs]
        merged = _merge(caches)
        sampler = self._sampler_for(rows)
        last_ids = mx.array([row.history[-1] for row in rows])
        choice = sampler.sample(self._forward(last_ids, merged), [row.produced for row in rows])
        mx.async_eval(choice.arrays())
        if self._choice is None:
            self._rows, self._caches, self._choice, self._sampler = rows, merged, choice, sampler
        else:
            self._rows += rows
            for mine, theirs in zip(self._caches, merged, strict=True):
                mine.extend(theirs)
            self._choice = self._choice.beside(choice)
            self._sampler = self._sampler_for(self._rows)

    def step(self) -> tuple[list[DecodedRow], dict[SequenceId, Caches]]:
        """Hand out the choice under way, after starting the next one; rows that it ends leave the batch.

        Returns:
            What each row produced, and the caches of ended rows that were to be kept. They hold all of the
            row's history but the last id.
        """
        if self._choice is None:
            return [], {}
        choice, self._choice = self._choice, None
        if any(row.produced + 1 < row.spec.sampling.max_tokens for row in self._rows):
            self._choice = self._start(choice.tokens)
        decoded = []
        for row, output in zip(self._rows, choice.read([row.spec.sampling for row in self._rows]), strict=True):
            row.history.append(output.token_id)
            decoded.append(DecodedRow(row.spec.sequence_id, (output,), row.finish(output.token_id)))
        ended = [i for i, row in enumerate(decoded) if row.finish]
        kept = {self._rows[i].spec.sequence_id: self._cache_of(i) for i in ended if self._rows[i].spec.keep_kv}
        self._leave(ended)
        return decoded, kept

    def forget(self, sequence_ids: Sequence[SequenceId]) -> None:
        """Let rows go; unknown ids are ignored."""
        self._leave([i for i, row in enumerate(self._rows) if row.spec.sequence_id in sequence_ids])

    def _start(self, tokens: mx.array) -> Choice:
        """Begin the step that follows the choice of `tokens`."""
        self._sampler.observe(tokens)
        choice = self._sampler.sample(self._forward(tokens, self._caches), [row.produced + 1 for row in self._rows])
        mx.async_eval(choice.arrays())
        return choice

    def _forward(self, tokens: mx.array, caches: Caches) -> mx.array:
        """Feed one token per row; logits of shape [batch, vocabulary]."""
        logits: mx.array = self._model(tokens[:, None], cache=caches)[:, -1]
        return logits

    def _sampler_for(self, rows: Sequence[Row]) -> Sampler:
        return Sampler([row.for_sampler() for row in rows], self._vocab_size)

    def _cache_of(self, place: int) -> Caches:
        """A copy of one row's cache, cut back to all of its history but the last id."""
        wanted = len(self._rows[place].history) - 1
        caches = [each.extract(place) if hasattr(each, "extract") else each for each in self._caches]
        for cache in caches:
            cache.trim(cache.size() - wanted)
        mx.eval([cache.state for cache in caches])
        return caches

    def _leave(self, places: Sequence[int]) -> None:
        if not places:
            return
        keep = [i for i in range(len(self._rows)) if i not in places]
        self._rows = [self._rows[i] for i in keep]
        self._sampler = self._sampler_for(self._rows)
        if not keep:
            self._caches, self._choice = [], None
            return
        for cache in self._caches:
            cache.filter(keep)
        if self._choice:
            self._choice = self._choice.only(keep)


def _merge(caches: Sequence[Caches]) -> Caches:
    """One batch cache per layer. A model whose caches cannot be merged runs one sequence at a time, in its own."""
    if len(caches) == 1 and not all(hasattr(cache, "merge") for cache in caches[0]):
        return caches[0]
    return [layer[0].merge(list(layer)) for layer in zip(*caches, strict=True)]
