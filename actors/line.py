"""The waiting line: who asked first goes first, whoever had to come back."""

from collections import deque
from itertools import takewhile

from actors import messages as m
from runtime.types import RequestId


class Line:
    """Requests that are not on stage."""

    def __init__(self) -> None:
        self._waiting: deque[m.Enqueue] = deque()
        self.starved = False
        """The head was refused KV bytes and waits until somebody leaves the stage."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def request_ids(self) -> tuple[RequestId, ...]:
        """First to go first."""
        return tuple(enqueued.request.request_id for enqueued in self._waiting)

    @property
    def starts_with_a_suspect(self) -> bool:
        return bool(self._waiting) and self._waiting[0].suspect

    @property
    def starts_with_one_apart(self) -> bool:
        return bool(self._waiting) and self._waiting[0].request.apart

    def append(self, enqueued: m.Enqueue) -> None:
        self._waiting.append(enqueued)

    def pop(self) -> m.Enqueue:
        return self._waiting.popleft()

    def put_back(self, enqueued: m.Enqueue) -> None:
        """In front of all who arrived later."""
        arrived_at = enqueued.request.arrived_at
        place = sum(1 for _ in takewhile(lambda other: other.request.arrived_at < arrived_at, self._waiting))
        self._waiting.insert(place, enqueued)

    def take(self, request_id: RequestId) -> m.Enqueue | None:
        """Take out whoever has that id."""
        for enqueued in self._waiting:
            if enqueued.request.request_id == request_id:
                self._waiting.remove(enqueued)
                return enqueued
        return None
