"""What a figure was over the last minutes, for a sparkline of any width."""

from collections import deque
from dataclasses import dataclass

SAMPLES = 240
"""How many a trend keeps: four minutes of one a second."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A figure's past, oldest first."""

    samples: tuple[float | None, ...] = ()
    """At most SAMPLES; None where there was nothing to measure."""
    taken: int = 0
    """How many there have been in all."""

    def cells(self, width: int) -> list[float | None]:
        """The mean of each of `width` equal stretches of the last SAMPLES; what was before the first is None.

        Stretches begin at fixed places of all that was ever taken, so that a cell does not change as it moves.
        """
        stretch = -(-SAMPLES // max(1, width))
        sums = [[0.0, 0] for _ in range(width)]
        last = (self.taken - 1) // stretch
        for index, sample in enumerate(self.samples, start=self.taken - len(self.samples)):
            cell = width - 1 - (last - index // stretch)
            if sample is not None and cell >= 0:
                sums[cell][0] += sample
                sums[cell][1] += 1
        return [total / number if number else None for total, number in sums]

    def highest(self) -> float | None:
        return max((each for each in self.samples if each is not None), default=None)


class Recorder:
    """Takes one sample after another."""

    def __init__(self) -> None:
        self._samples: deque[float | None] = deque(maxlen=SAMPLES)
        self._taken = 0

    def take(self, sample: float | None) -> None:
        self._samples.append(sample)
        self._taken += 1

    def trend(self) -> Trend:
        return Trend(tuple(self._samples), self._taken)
