"""The next token of every row, perhaps not computed yet, and how it follows rows that join and leave."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from runtime.types import Sampling, TokenOutput


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probabilities of those rows of a batch that asked for them."""

    rows: tuple[int, ...]
    """Their places in the batch."""
    chosen: mx.array
    """Shape [rows]: of the token that was chosen."""
    top_ids: mx.array
    """Shape [rows, n], n the most that any of them asked for; likeliest first."""
    top_values: mx.array

    def arrays(self) -> list[mx.array]:
        return [self.chosen, self.top_ids, self.top_values]

    def read(self) -> Iterator[tuple[int, float, tuple[tuple[int, float], ...]]]:
        """Wait for the values: place, log-probability of the chosen token, and the likeliest (id, log-probability)."""
        chosen = cast("list[float]", self.chosen.tolist())
        ids = cast("list[list[int]]", self.top_ids.tolist())
        values = cast("list[list[float]]", self.top_values.tolist())
        for i, row in enumerate(self.rows):
            yield row, chosen[i], tuple(zip(ids[i], values[i], strict=True))

    def moved(self, places: Mapping[int, int]) -> "Logprobs | None":
        """The same after rows moved from one place to another; those that have no new place are left out."""
        kept = [i for i, row in enumerate(self.rows) if row in places]
        if not kept:
            return None
        which = mx.array(kept)
        rows = tuple(places[self.rows[i]] for i in kept)
        return Logprobs(rows, self.chosen[which], self.top_ids[which], self.top_values[which])


@dataclass(frozen=True, slots=True)
class Choice:
    """The next token of every row of a batch, perhaps not computed yet."""

    tokens: mx.array
    """Shape [batch]."""
    logprobs: tuple[Logprobs, ...] = ()

    def arrays(self) -> list[mx.array]:
        return [self.tokens, *(array for part in self.logprobs for array in part.arrays())]

    def beside(self, other: "Choice") -> "Choice":
        """The choice of a batch whose rows are these and, behind them, those of `other`."""
        here, there = self.tokens.shape[0], other.tokens.shape[0]
        behind = {place: here + place for place in range(there)}
        moved = [part.moved(behind) for part in other.logprobs]
        return Choice(mx.concatenate([self.tokens, other.tokens]), (*self.logprobs, *filter(None, moved)))

    def only(self, keep: Sequence[int]) -> "Choice":
        """The choice of the rows at the places `keep`, in that order."""
        places = {old: new for new, old in enumerate(keep)}
        moved = [part.moved(places) for part in self.logprobs]
        return Choice(self.tokens[mx.array(list(keep))], tuple(filter(None, moved)))

    def read(self, samplings: Sequence[Sampling]) -> list[TokenOutput]:
        """Wait for the choice and return it row by row."""
        token_ids = cast("list[int]", self.tokens.tolist())
        outputs = [TokenOutput(token_id) for token_id in token_ids]
        for part in self.logprobs:
            for row, chosen, top in part.read():
                outputs[row] = TokenOutput(token_ids[row], chosen, top[: samplings[row].top_logprobs])
        return outputs
