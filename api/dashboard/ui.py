"""What the keys do: a pure function from what is chosen and a key to what is chosen then."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from api.dashboard import words
from api.dashboard.model import Phase, RequestRow


class Sort(StrEnum):
    """By which column the requests are sorted."""

    ARRIVAL = "arrival"
    PHASE = "phase"
    PROGRESS = "progress"
    TOKENS = "tokens"
    SPEED = "tok/s"
    CACHED = "cached"
    AGE = "age"


_PHASES = {Phase.DECODE: 0, Phase.PREFILL: 1, Phase.WAITING: 2}
_KEYS: dict[Sort, Callable[[RequestRow], float]] = {
    Sort.PHASE: lambda row: _PHASES[row.phase],
    Sort.PROGRESS: lambda row: -row.progress,
    Sort.TOKENS: lambda row: -row.done,
    Sort.SPEED: lambda row: -(row.tokens_per_s or 0.0),
    Sort.CACHED: lambda row: -row.cached,
    Sort.AGE: lambda row: -(row.age_s or 0.0),
}


@dataclass(frozen=True, slots=True)
class Ui:
    """What is chosen."""

    sort: Sort = Sort.ARRIVAL
    reverse: bool = False
    paused: bool = False
    selected: str | None = None
    """A request's id; it may have ended."""
    asking: str | None = None
    """The request that is to be cancelled, if the answer is y."""
    help: bool = False
    said: str = ""
    """What came of the last key, until the next one."""


@dataclass(frozen=True, slots=True)
class Quit:
    """End the dashboard."""


@dataclass(frozen=True, slots=True)
class Suspend:
    """Give the terminal back to the shell until the dashboard is in the foreground again."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Ask the server to end this request."""

    request_id: str


Wish = Quit | Suspend | CancelRequest

KEYS = (
    ("q", "quit"),
    ("s, S", "sort by the next column, the other way round"),
    ("p", "pause: the picture stays, figures go on being read"),
    ("up, down (k, j)", "select a request; also page up and down, home, end"),
    ("c", "cancel the selected request, after a question"),
    ("escape", "select none"),
    ("?", "show and hide these keys"),
)


def ordered(rows: Sequence[RequestRow], ui: Ui) -> list[RequestRow]:
    """As they are shown: the most first, and who came first among equals."""
    key = _KEYS.get(ui.sort)
    found = sorted(rows, key=key) if key else list(rows)
    return found[::-1] if ui.reverse else found


def position(rows: Sequence[RequestRow], ui: Ui) -> int | None:
    """Where the selected request stands; None if none is, or if it has ended."""
    return next((index for index, row in enumerate(rows) if row.request_id == ui.selected), None)


def press(ui: Ui, key: str, rows: Sequence[RequestRow], page: int = 10) -> tuple[Ui, Wish | None]:
    """What a key does, while `rows` are shown (in any order)."""
    if key in ("q", "interrupt"):
        return ui, Quit()
    if key == "suspend":
        return ui, Suspend()
    ui = replace(ui, said="")
    if ui.asking:
        return _answer(ui, ui.asking, key)
    if key in _MOVES:
        return _move(ui, ordered(rows, ui), _MOVES[key], page), None
    return _choose(ui, key, rows), None


def _answer(ui: Ui, asking: str, key: str) -> tuple[Ui, Wish | None]:
    if key in ("y", "Y"):
        return replace(ui, asking=None, said="cancelling…"), CancelRequest(asking)
    return replace(ui, asking=None, said="not cancelled"), None


def _choose(ui: Ui, key: str, rows: Sequence[RequestRow]) -> Ui:
    match key:
        case "s":
            columns = list(Sort)
            return replace(ui, sort=columns[(columns.index(ui.sort) + 1) % len(columns)])
        case "S":
            return replace(ui, reverse=not ui.reverse)
        case "p":
            return replace(ui, paused=not ui.paused)
        case "?":
            return replace(ui, help=not ui.help)
        case "escape":
            return replace(ui, help=False, selected=None)
        case "c" if position(rows, ui) is not None:
            return replace(ui, asking=ui.selected)
        case "c":
            return replace(ui, said="select a request first, with up and down")
    return ui


_MOVES: dict[str, Callable[[int, int], int]] = {
    "up": lambda at, page: at - 1,
    "k": lambda at, page: at - 1,
    "down": lambda at, page: at + 1,
    "j": lambda at, page: at + 1,
    "page up": lambda at, page: at - page,
    "page down": lambda at, page: at + page,
    "home": lambda at, page: 0,
    "end": lambda at, page: 1 << 30,
}


def _move(ui: Ui, rows: Sequence[RequestRow], move: Callable[[int, int], int], page: int) -> Ui:
    if not rows:
        return replace(ui, said="there is no request to select")
    at = position(rows, ui)
    if at is None:  # Then those that go up come from below, and all others from above.
        at = len(rows) if move(0, page) < 0 else -1
    index = move(at, page)
    return replace(ui, selected=rows[max(0, min(len(rows) - 1, index))].request_id)


def question(asking: str) -> str:
    return f"cancel {words.short_id(asking)}? y/n"
