"""The running batch: rows join and leave between steps, and the next step starts before the last one is read.

A row that has a grammar cannot choose its next token before its last one is known, but the model can be fed that token:
with such rows only the forward pass is started early, and their masks are made while it is computed (ADR 8).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import mlx.core as mx

from runtime.engine.commands import DecodedRow, JoinRow, SequenceFailed
from runtime.mlx.aligned import order
from runtime.mlx.caches import Caches, Held, extend, merge
from runtime.mlx.choice import Choice
from runtime.mlx.edits import RowHistory
from runtime.mlx.grammar import Grammars, Mask, Matcher
from runtime.mlx.loader import LoadedModel
from runtime.mlx.sampler import Sampler
from runtime.types import FinishReason, SequenceId, TokenOutput


@dataclass(slots=True)
class Row:
    """One sequence in the batch."""

    spec: JoinRow
    history: list[int]
    """Prompt and output ids that were handed out; the choice under way is not among them."""
    matcher: Matcher | None = None
    """How far the output is in the row's grammar, if it has one."""
    again: tuple[int, ...] = ()
    """The output's beginning: it was handed out in an earlier life, and is fed as it was made, step by step."""

    @property
    def produced(self) -> int:
        return len(self.history) - self.spec.prompt_tokens

    @property
    def error(self) -> str:
        """Why the row cannot go on; empty if it can."""
        return self.matcher.error if self.matcher else ""

    @property
    def repeats(self) -> bool:
        """Whether the next token is one that was handed out before."""
        return self.produced < len(self.again)

    def as_joined(self) -> JoinRow:
        """The row as it could join another batch: with all that was handed out."""
        told = self.history[: self.spec.prompt_tokens] + list(self.again) if self.repeats else self.history
        return replace(self.spec, history=tuple(told))

    def take(self, token_id: int) -> FinishReason | None:
        """Let `token_id` be the next of the history; why it ends the row, None if it does not."""
        if token_id in self.spec.sampling.stop_ids:
            return FinishReason.STOP
        if self.matcher:
            self.matcher.advance([token_id])
            if self.matcher.complete:
                return FinishReason.STOP
        return FinishReason.LENGTH if self.produced + 1 >= self.spec.sampling.max_tokens else None

    def for_sampler(self) -> RowHistory:
        split = self.spec.prompt_tokens
        return RowHistory(self.spec.sampling, self.history[:split], self.history[split:])


Newcomer = tuple[JoinRow, Held]
"""A row with caches that hold all of its history but the last id, or all of its prompt but the last id: then its output
is fed again."""


def _row(spec: JoinRow, held: Held) -> Row:
    if held.tokens == len(spec.history) - 1:
        return Row(spec, list(spec.history))
    prompt, output = spec.history[: spec.prompt_tokens], spec.history[spec.prompt_tokens :]
    return Row(spec, list(prompt), again=output)


@dataclass(slots=True)
class Step:
    """What came of one step."""

    rows: list[DecodedRow] = field(default_factory=list)
    kept: dict[SequenceId, Held] = field(default_factory=dict)
    """Caches of rows that ended and were to be kept. They hold all of the row's history but the last id, or that too:
    the next step may have begun."""
    failed: list[SequenceFailed] = field(default_factory=list)

    def __add__(self, other: "Step") -> "Step":
        return Step(self.rows + other.rows, self.kept | other.kept, self.failed + other.failed)


class DecodeBatch:
    """Rows with their caches merged (mlx-lm's batch caches), and the choice under way for each of them.

    After a method raised, nothing but `rows` may be used any more: what they hand out is unchanged by the failure.
    """

    def __init__(self, model: LoadedModel, grammars: Grammars) -> None:
        self._model = model
        self._vocab_size = model.vocab_size
        self._grammars = grammars
        self._rows: list[Row] = []
        self._caches: Caches = []
        self._sampler: Sampler | None = None
        """For the rows as they are; None after they changed, until it is needed."""
        self._choice: Choice | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def longest(self) -> int:
        """How many tokens the longest row holds; every row's cache is padded to it."""
        return max((len(row.history) for row in self._rows), default=0)

    def rows(self) -> list[JoinRow]:
        """The rows as they could join another batch: with all they have handed out."""
        return [row.as_joined() for row in self._rows]

    @property
    def repeats(self) -> bool:
        """Whether output that was handed out before is being fed again."""
        return any(row.repeats for row in self._rows)

    @property
    def is_apart(self) -> bool:
        """Whether its row is to stay alone."""
        return any(row.spec.apart for row in self._rows)

    def join(self, newcomers: Sequence[Newcomer]) -> None:
        """Take rows in.

        Their first step is taken at once, in a forward pass of their own: from then on every row of the batch
        has a choice under way.
        """
        shortest_first = [newcomers[place] for place in order([held.tokens for _, held in newcomers])]
        batch = DecodeBatch(self._model, self._grammars)
        batch._rows = self._rows_of(shortest_first)
        batch._caches = merge([held.caches for _, held in shortest_first], are_aligned=self._model.invariant)
        batch._resume()
        self._resume()
        self.absorb(batch)

    def _rows_of(self, newcomers: Sequence[Newcomer]) -> list[Row]:
        """Rows, each in its grammar where its output ends. Choices of one request have a grammar that is read once."""
        rows = [_row(*newcomer) for newcomer in newcomers]
        matchers: dict[tuple[str, frozenset[int]], Matcher] = {}
        for row in rows:
            sampling = row.spec.sampling
            if sampling.grammar:
                key = sampling.grammar, sampling.stop_ids
                matchers[key] = matchers.get(key) or self._grammars.matcher(*key)
                row.matcher = matchers[key].copy()
                row.matcher.advance(row.history[row.spec.prompt_tokens :])
        return rows

    def _resume(self) -> None:
        """Have a choice under way."""
        if self._rows and self._choice is None:
            logits = self._forward(mx.array([row.history[-1] for row in self._rows]))
            self._choice = self._choose(logits, [row.produced for row in self._rows])

    def absorb(self, other: "DecodeBatch") -> None:
        """Take in all rows of another batch, which must not be used any more."""
        if self._choice is None or other._choice is None:
            if other._choice is not None:
                self._rows, self._caches = other._rows, other._caches
                self._sampler, self._choice = other._sampler, other._choice
            return
        extend(self._caches, other._caches)
        rows, choice = self._rows + other._rows, self._choice.beside(other._choice)
        if self._model.invariant:
            places = order([len(row.history) for row in rows])
            rows, choice = [rows[place] for place in places], choice.only(places)
        self._rows = rows
        self._rechoose(choice)

    def first_step(self) -> Step:
        """Hand out the choice under way and start nothing behind it: on the CPU, whoever starts a step waits until most
        of it is done."""
        return self.step(ahead=False)

    def step(self, *, ahead: bool = True) -> Step:
        """Hand out the choice under way, after starting the next one; rows that it ends leave the batch."""
        self._resume()
        if self._choice is None:
            return Step()
        choice, self._choice = self._choice, None
        positions = [row.produced + 1 for row in self._rows]
        logits = self._follow(choice.tokens) if ahead and self._go_on() else None
        if logits is None:
            self._sampler = None  # It has not seen these tokens.
        if logits is not None and not self._constrained():
            self._choice = self._choose(logits, positions)
        outputs = choice.read([row.spec.sampling for row in self._rows])
        finishes = [row.take(output.token_id) for row, output in zip(self._rows, outputs, strict=True)]
        if logits is not None and self._choice is None:
            self._choice = self._choose(logits, positions)
        return self._hand_out(outputs, finishes, fed=logits is not None)

    def _hand_out(self, outputs: Sequence[TokenOutput], finishes: Sequence[FinishReason | None], *, fed: bool) -> Step:
        """Part with a step's tokens, which may have been fed already, and with the rows that it ends."""
        step = Step()
        going_on: list[tuple[Row, TokenOutput]] = []
        leaving = []
        for place, (row, output, finish) in enumerate(zip(self._rows, outputs, finishes, strict=True)):
            if row.repeats:
                going_on.append((row, output))
                continue
            if row.error:
                step.failed.append(SequenceFailed(row.spec.sequence_id, row.error, refused=True))
            else:
                kept = finish is not None and row.spec.keep_kv
                tokens = len(row.history) + fed if kept else 0
                step.rows.append(DecodedRow(row.spec.sequence_id, (output,), finish, tokens))
                if kept:
                    step.kept[row.spec.sequence_id] = Held(self._caches_of(place), tokens)
            if finish or row.error:
                leaving.append(place)
            else:
                going_on.append((row, output))
        self._leave(leaving)
        # Last of all, so that histories tell what was handed out, whatever raises before.
        for row, output in going_on:
            row.history.append(output.token_id)
        return step

    def held(self, sequence_id: SequenceId) -> Held | None:
        """A copy of a row's caches, with all of its history; None if there is no such row."""
        for place, row in enumerate(self._rows):
            if row.spec.sequence_id == sequence_id:
                return Held(self._caches_of(place), len(row.history) - (self._choice is None))
        return None

    def forget(self, sequence_ids: Sequence[SequenceId]) -> None:
        """Let rows go; unknown ids are ignored."""
        self._leave([i for i, row in enumerate(self._rows) if row.spec.sequence_id in sequence_ids])

    def _rechoose(self, choice: Choice) -> None:
        """The rows changed, and the choice under way with them. It is computed apart from the step that follows:
        who waits for a part of a graph waits for the whole."""
        mx.async_eval(choice.arrays())
        self._choice, self._sampler = choice, None

    def _go_on(self) -> bool:
        return any(row.produced + 1 < row.spec.sampling.max_tokens for row in self._rows)

    def _constrained(self) -> bool:
        return any(row.matcher for row in self._rows)

    def _follow(self, tokens: mx.array) -> mx.array:
        """Begin the step that follows the choice of `tokens`, which need not be known yet; its logits."""
        self._sampler = self._sampler or self._sampler_for(self._rows)
        self._sampler.observe(tokens)
        return self._forward(tokens)

    def _forward(self, tokens: mx.array) -> mx.array:
        """Feed one token per row; logits of shape [batch, vocabulary], under way if their choice has to wait."""
        # A model may have logits for more ids than it has embeddings for; those could not be fed back.
        logits: mx.array = self._model.model(tokens[:, None], cache=self._caches)[:, -1, : self._vocab_size]
        if self._constrained():
            mx.async_eval(logits)
        return logits

    def _choose(self, logits: mx.array, positions: Sequence[int]) -> Choice:
        """Choose every row's next token from `logits`; the choice is under way."""
        self._sampler = self._sampler or self._sampler_for(self._rows)
        choice = self._sampler.sample(logits, positions, self._mask())
        if any(row.again for row in self._rows):
            choice = self._again(choice, positions)
        mx.async_eval(choice.arrays())
        return choice

    def _again(self, choice: Choice, positions: Sequence[int]) -> Choice:
        """The choice, but for the rows that choose as they did before."""
        for place, (row, position) in enumerate(zip(self._rows, positions, strict=True)):
            if position < len(row.again):
                choice.tokens[place] = row.again[position]
        return choice

    def _mask(self) -> Mask | None:
        matchers = {place: row.matcher for place, row in enumerate(self._rows) if row.matcher and not row.error}
        return self._grammars.mask(matchers) if matchers else None

    def _sampler_for(self, rows: Sequence[Row]) -> Sampler:
        return Sampler([row.for_sampler() for row in rows], self._vocab_size)

    def _caches_of(self, place: int) -> Caches:
        """A copy of a row's caches; those that cannot be merged are its own."""
        caches = [each.extract(place) if hasattr(each, "extract") else each for each in self._caches]
        mx.eval([cache.state for cache in caches])
        return caches

    def _leave(self, places: Sequence[int]) -> None:
        if not places:
            return
        keep = [i for i in range(len(self._rows)) if i not in places]
        self._rows = [self._rows[i] for i in keep]
        self._sampler = None
        if not keep:
            self._caches, self._choice = [], None
            return
        for cache in self._caches:
            cache.filter(keep)
        if self._choice:
            self._rechoose(self._choice.only(keep))
