"""The rows that run, in as few batches as padding allows; what makes a batch raise costs the rest of it nothing."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf

from runtime.engine.commands import JoinRow
from runtime.engine.host import Beat
from runtime.mlx import device
from runtime.mlx.batch import DecodeBatch, Newcomer, Step
from runtime.mlx.caches import Held
from runtime.mlx.grammar import Grammars
from runtime.mlx.loader import LoadedModel
from runtime.mlx.revival import revive
from runtime.types import SequenceId

log = logging.getLogger("troupe.engine")


class Batches:
    """More than one only where padding costs more than it saves: see device.may_share_a_batch."""

    def __init__(self, model: LoadedModel, grammars: Grammars, beat: Beat) -> None:
        self._model = model
        self._grammars = grammars
        self._beat = beat
        self._batches: list[DecodeBatch] = []
        self._joining: list[Newcomer] = []

    def __iter__(self) -> Iterator[DecodeBatch]:
        return iter(self._batches)

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._batches or self._joining)

    def join(self, newcomers: Sequence[Newcomer]) -> None:
        """Let rows take part from the next step on."""
        for row, held in newcomers:
            if held.tokens not in (len(row.history) - 1, row.prompt_tokens - 1):
                log.error("sequence %d came with %d tokens of %d", row.sequence_id, held.tokens, len(row.history) - 1)
                held = self._computed(row)
            self._joining.append((row, held))

    def forget(self, sequence_ids: Sequence[SequenceId]) -> None:
        """Let rows go; unknown ids are ignored."""
        for batch in self._batches:
            batch.forget(sequence_ids)
        self._joining = [newcomer for newcomer in self._joining if newcomer[0].sequence_id not in sequence_ids]

    def held(self, sequence_id: SequenceId) -> Held | None:
        """What the caches hold of a row, copied if it has begun; None if there is no such row."""
        waiting = (held for row, held in self._joining if row.sequence_id == sequence_id)
        running = (batch.held(sequence_id) for batch in self._batches)
        return next(waiting, None) or next(filter(None, running), None)

    def step(self) -> Step:
        """One step of every batch. Rows that run already get their tokens before others join them: the first step of
        those is not waited for."""
        step = Step()
        for place in range(len(self._batches)):
            step += self._guarded(place, DecodeBatch.step)
        ran_before = bool(step.rows)
        joining, self._joining = self._joining, []
        for place, newcomers in self._homes(joining).items():
            step += self._guarded(place, partial(_join, newcomers), [row for row, _ in newcomers])
            if not ran_before:
                step += self._guarded(place, DecodeBatch.first_step)
        self._batches = [batch for batch in self._batches if len(batch)]
        return step

    def _homes(self, newcomers: Sequence[Newcomer]) -> dict[int, list[Newcomer]]:
        """Which batch each row goes to, by its place: one of rows about as long, or a new one."""
        lengths = [inf if batch.is_apart else batch.longest for batch in self._batches]
        homes: dict[int, list[Newcomer]] = {}
        for newcomer in newcomers:
            row = newcomer[0]
            length = inf if row.apart else len(row.history)
            place = next((i for i, other in enumerate(lengths) if device.may_share_a_batch(length, other)), None)
            if place is None:
                place = len(lengths)
                lengths.append(length)
                self._batches.append(self._batch_of([]))
            homes.setdefault(place, []).append(newcomer)
        return homes

    def _guarded(self, place: int, work: Callable[[DecodeBatch], Step], newcomers: Sequence[JoinRow] = ()) -> Step:
        """What `work` gives; if it raises, the batch is made anew from what its rows have handed out."""
        batch = self._batches[place]
        try:
            return work(batch)
        except Exception as error:
            log.warning("a decode step raised %s: %s; making the batch anew", type(error).__name__, error)
            rows = {row.sequence_id: row for row in (*newcomers, *batch.rows())}
            self._batches[place], step = revive(list(rows.values()), self._batch_of, self._beat)
            if len(step.failed) == len(rows) > 1:
                raise  # It is not the rows: the engine itself is broken.
            return step

    def _batch_of(self, rows: Sequence[JoinRow]) -> DecodeBatch:
        """A batch of these rows, their caches computed from their histories."""
        batch = DecodeBatch(self._model, self._grammars)
        if rows:
            batch.join([(row, self._computed(row)) for row in rows])
        return batch

    def _computed(self, row: JoinRow) -> Held:
        prompt, output = row.history[: row.prompt_tokens], row.history[row.prompt_tokens :]
        return self._model.computed(prompt, output, self._beat)


def _join(newcomers: Sequence[Newcomer], batch: DecodeBatch) -> Step:
    batch.join(newcomers)
    return Step()
