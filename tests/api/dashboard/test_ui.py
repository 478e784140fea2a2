"""What the keys do."""

from dataclasses import replace

import pytest

from api.dashboard.keys import named
from api.dashboard.model import Phase, RequestRow
from api.dashboard.ui import CancelRequest, Quit, Sort, Suspend, Ui, ordered, press
from runtime.types import RequestId

ROWS = tuple(
    RequestRow(RequestId(name), phase, age, done, 100, speed)
    for name, phase, age, done, speed in (
        ("a", Phase.DECODE, 9.0, 10, 5.0),
        ("b", Phase.DECODE, 8.0, 90, 7.0),
        ("c", Phase.PREFILL, 7.0, 50, 6.0),
        ("d", Phase.WAITING, 6.0, 0, None),
    )
)


def typed(keys: str | list[str], ui: Ui | None = None, rows: tuple[RequestRow, ...] = ROWS) -> Ui:
    ui = ui or Ui()
    for key in keys:
        ui, _ = press(ui, key, rows, page=3)
    return ui


def names(ui: Ui) -> str:
    return "".join(row.request_id for row in ordered(ROWS, ui))


def test_s_goes_through_all_columns_and_back() -> None:
    assert [typed("s" * times).sort for times in range(len(Sort) + 1)] == [*Sort, Sort.ARRIVAL]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        (Sort.ARRIVAL, "abcd"),
        (Sort.PHASE, "abcd"),
        (Sort.PROGRESS, "bcad"),
        (Sort.SPEED, "bcad"),
        (Sort.AGE, "abcd"),
        (Sort.CACHED, "abcd"),
    ],
)
def test_the_most_comes_first_and_the_other_way_round(sort: Sort, order: str) -> None:
    assert names(Ui(sort=sort)) == order
    assert names(typed("S", Ui(sort=sort))) == order[::-1]


@pytest.mark.parametrize(
    ("keys", "selected"),
    [
        (["down"], "a"),
        (["up"], "d"),
        (["end"], "d"),
        (["home"], "a"),
        (["page down"], "c"),
        (["down", "down"], "b"),
        (["j", "j", "k"], "a"),
        (["down", "page down"], "d"),
        (["end", "page up"], "a"),
        (["end", "down"], "d"),
        (["down", "escape"], None),
    ],
)
def test_keys_move_the_selection_and_stay_within_the_rows(keys: list[str], selected: str | None) -> None:
    assert typed(keys).selected == selected


def test_a_selection_follows_its_request_when_the_order_changes() -> None:
    ui = typed(["down", "s", "s"])
    assert ui.selected == "a"
    assert typed(["up"], ui).selected == "c"


def test_where_there_is_no_request_none_is_selected() -> None:
    ui = typed(["down"], rows=())
    assert (ui.selected, ui.said) == (None, "there is no request to select")


def test_cancelling_asks_first() -> None:
    ui = typed(["down", "c"])
    assert ui.asking == "a"
    assert press(ui, "y", ROWS) == (replace(ui, asking=None, said="cancelling…"), CancelRequest("a"))


@pytest.mark.parametrize("key", ["n", "escape", "c", "down"])
def test_any_other_answer_cancels_nothing(key: str) -> None:
    ui, wish = press(typed(["down", "c"]), key, ROWS)
    assert (ui.asking, ui.said, wish) == (None, "not cancelled", None)


def test_nothing_is_cancelled_unless_it_is_selected_and_still_there() -> None:
    assert typed("c").asking is None
    ui = typed(["c"], typed(["down"]), rows=ROWS[1:])
    assert (ui.asking, ui.said) == (None, "select a request first, with up and down")


def test_quitting_works_in_the_middle_of_a_question() -> None:
    assert press(typed(["down", "c"]), "interrupt", ROWS)[1] == Quit()
    assert press(Ui(), "q", ROWS)[1] == Quit()
    assert press(Ui(), "suspend", ROWS)[1] == Suspend()


def test_pause_and_help_are_switched() -> None:
    assert (typed("p").paused, typed("pp").paused) == (True, False)
    assert (typed("?").help, typed("??").help, typed(["?", "escape"]).help) == (True, False, False)


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("sS", ["s", "S"]),
        ("\x1b[A\x1b[Bx", ["up", "down", "x"]),
        ("\x1bOA", ["up"]),
        ("\x1b[5~\x1b[6~", ["page up", "page down"]),
        ("\x1b", ["escape"]),
        ("\x1b[1;5C", []),
        ("\x03\x1a", ["interrupt", "suspend"]),
        ("\r\n\t", []),
        ("\x1b[200~q", ["q"]),
        ("é", ["é"]),
    ],
)
def test_keys_are_told_by_name_and_unknown_sequences_are_left_out(sent: str, keys: list[str]) -> None:
    assert named(sent) == keys
