"""After a step raised: who of the batch is to blame, and how the others go on."""

import logging
from collections.abc import Callable, Sequence

from runtime.engine.commands import JoinRow, SequenceFailed
from runtime.engine.host import Beat
from runtime.mlx.batch import DecodeBatch, Step
from runtime.types import SequenceId

log = logging.getLogger("troupe.engine")


def revive(
    rows: Sequence[JoinRow], batch_of: Callable[[Sequence[JoinRow]], DecodeBatch], beat: Beat
) -> tuple[DecodeBatch, Step]:
    """Make a batch of `rows` anew, without those that make it raise.

    All are tried together, then by halves: of n rows, one that raises is found in about 2 log n tries. A try is a whole
    step, so that it shows whatever a step can show, and so that everyone who is well gets on by a token. Output that is
    fed again is fed to its end first: what raised is behind it, and would be come to again and again.

    Args:
        batch_of: makes a batch of rows from their histories.

    Returns:
        The batch, and what came of these steps.
    """
    try:
        batch = batch_of(rows)
        step = Step()
        while batch.repeats:
            step += batch.step()
            beat("feeding output again")
        return batch, step + batch.step()
    except Exception as error:
        if len(rows) <= 1:
            return batch_of([]), Step(failed=[failure_of(row.sequence_id, error) for row in rows])
    middle = len(rows) // 2
    first, first_step = revive(rows[:middle], batch_of, beat)
    second, second_step = revive(rows[middle:], batch_of, beat)
    first.absorb(second)
    return first, first_step + second_step


def failure_of(sequence_id: SequenceId, error: Exception) -> SequenceFailed:
    """One sequence's end, as the actors hear of it; the log gets the whole story."""
    log.error("sequence %d made the engine raise", sequence_id, exc_info=error)
    return SequenceFailed(sequence_id, f"{type(error).__name__}: {error}")
