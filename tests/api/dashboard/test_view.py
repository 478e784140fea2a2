"""The picture: it fits, it shows everything that matters, and it survives every snapshot."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.segment import Segment

from actors.snapshots import HouseSnapshot, MonitorSnapshot, RoomState, Trouble
from api.dashboard import parts
from api.dashboard.model import Figures, Model
from api.dashboard.parts import Block
from api.dashboard.screen import text_of
from api.dashboard.tables import window
from api.dashboard.ui import Sort, Ui
from api.dashboard.view import Link, picture
from runtime.engine.host import Vitals
from runtime.types import PressureLevel
from tests.api.dashboard.houses import ACTORS, HOUSES, busy, moments
from tests.api.fakes import MEMORY

ROOT = Path(__file__).resolve().parents[3]
LINK = Link("http://127.0.0.1:8000")
SIZES = [(80, 24), (100, 30), (120, 32), (200, 60)]


def figures(house: HouseSnapshot) -> Figures:
    return Model(1.0).take(house)


def text(house: HouseSnapshot, size: tuple[int, int] = (200, 60), ui: Ui | None = None, link: Link = LINK) -> str:
    return text_of(picture(figures(house), ui or Ui(), link, *size))


def fits(block: Block, width: int, height: int) -> bool:
    lines_fit = all(Segment.get_line_length(line) == width for line in block)
    return len(block) == height and lines_fit and all(each.text.isprintable() for line in block for each in line)


@settings(max_examples=60, deadline=None)
@given(
    houses=st.tuples(HOUSES, HOUSES),
    width=st.integers(20, 300),
    height=st.integers(5, 100),
    ui=st.builds(Ui, sort=st.sampled_from(Sort), reverse=st.booleans(), paused=st.booleans(), help=st.booleans()),
    ascii_only=st.booleans(),
    why=st.text(max_size=20),
)
def test_any_snapshot_fits_a_terminal_of_any_size(
    houses: tuple[HouseSnapshot, HouseSnapshot], width: int, height: int, ui: Ui, ascii_only: bool, why: str
) -> None:
    model = Model(1.0)
    model.take(houses[0])
    ui = replace(ui, selected=next(iter(houses[1].admitter.open_requests), None) if houses[1].admitter else None)
    block = picture(model.take(houses[1]), ui, replace(LINK, trouble=why), width, height, ascii_only=ascii_only)
    assert fits(block, width, height)
    assert not ascii_only or text_of(block).isascii()


@pytest.mark.parametrize("requests", [0, 1, 3, 200])
@pytest.mark.parametrize("size", [(20, 5), (40, 10), *SIZES, (300, 100)])
def test_a_busy_house_fits(size: tuple[int, int], requests: int) -> None:
    model = Model(1.0)
    found = [model.take(house) for house in moments((1.0, 2.0, 3.0), requests)][-1]
    assert fits(picture(found, Ui(selected=f"cmpl-{1:08x}{'0' * 16}-0"), LINK, *size), *size)


@pytest.mark.parametrize("size", SIZES)
def test_what_matters_is_seen(size: tuple[int, int]) -> None:
    shown = text(busy(200, 10.0), size)
    for words in (*ACTORS, "ready", "step 12 ms", "PRESSURE WARN", "pid 4711", "active 1.9 GiB", "hit rate 25 %"):
        assert words in shown
    for words in ("cmpl-00000001-0", "decode", "tok/s", "100/2000", "miss", "200 inside", "the pace could not be held"):
        assert words in shown


def test_a_large_terminal_shows_everything() -> None:
    shown = text(busy(200, 10.0))
    for words in (
        "company 0.875 · first at 7",
        "DIVERGED",
        "of 256",
        "2 leases",
        "5 evictions",
        "disk 6 MiB",
        "9 miss",
    ):
        assert words.replace("of 256", "256") in shown
    for words in (
        "Trends over 4 min",
        "peak 2.8 GiB",
        "resident 3.7 GiB",
        "40 steps",
        "prefill 80 ms for 512",
        "250 ms",
    ):
        assert words in shown


def test_rows_that_do_not_fit_are_counted() -> None:
    assert "and 198 more" in text(busy(200), (80, 24))
    assert "more" not in text(busy(2), (80, 24))
    assert "no requests" in text(busy(0), (80, 24))


@pytest.mark.parametrize("number", [1, 2, 100, 199, 200])
@pytest.mark.parametrize("size", SIZES)
def test_the_selected_row_is_always_seen(size: tuple[int, int], number: int) -> None:
    shown = text(busy(200), size, Ui(selected=f"cmpl-{number:08x}{'0' * 16}-0"))
    assert f"▸ cmpl-{number:08x}-0" in shown


@pytest.mark.parametrize(("at", "first"), [(0, 0), (5, 0), (50, 45), (99, 90)])
def test_the_window_is_around_the_selected_row(at: int, first: int) -> None:
    assert window(100, at, 10) == first


def test_nothing_is_told_by_colour_alone() -> None:
    """What differs in style differs in words as well."""
    good = replace(busy(), monitor=MonitorSnapshot(PressureLevel.NORMAL, MEMORY), troubles=())
    restarting = replace(good, scheduler=None, room=RoomState.RESTARTING)
    silent = replace(good, engine=Vitals(4711, "decoding", 30.0, 2))
    assert "dead" in text(restarting)
    assert "restarting" in text(restarting)
    assert "dead" not in text(good)
    assert "SILENT for 30.0 s, at decoding" in text(silent)
    troubled = replace(good, troubles=(Trouble(999.0, "error", "engine", "it died"),))
    assert "error engine:" in text(troubled)


def test_a_loss_of_the_connection_is_said_and_the_last_picture_is_dimmed() -> None:
    lost = replace(LINK, trouble="nobody listens there", silent_s=3.2)
    block = picture(figures(busy()), Ui(), lost, 120, 32)
    assert "not connected for 3.2 s, trying again: nobody listens there" in text_of(block[:1])
    assert all(each.style and each.style.dim for line in block[1:-1] for each in line if each.text.strip())
    assert "scheduler" in text_of(block)


def test_before_anything_came_it_says_that_it_connects() -> None:
    assert "connecting…" in text_of(picture(None, Ui(), LINK, 80, 24))


def test_the_first_line_and_the_last_say_what_is_chosen() -> None:
    assert "PAUSED" in text(busy(), (80, 24), Ui(paused=True))
    assert "cancel cmpl-00000001-0? y/n" in text(busy(), (80, 24), Ui(asking=f"cmpl-00000001{'0' * 16}-0"))
    assert "by tok/s ▲" in text(busy(), (80, 24), Ui(sort=Sort.SPEED, reverse=True))
    assert "pause" in text(busy(), (80, 24), Ui(help=True))


def test_what_a_server_says_cannot_move_the_cursor() -> None:
    evil = Trouble(999.0, "error", "\x1b[2J", "one\nline \x1b]0;title\x07 \u202e")
    assert text(replace(busy(), troubles=(evil,)), (80, 24)).count("\x1b") == 0


@pytest.mark.parametrize(
    ("height", "drawn"),
    [(1, [" ▁▄▇"]), (2, ["   ▇", " ▁██"])],
)
def test_a_sparkline_goes_from_nothing_to_its_highest(height: int, drawn: list[str]) -> None:
    assert parts.spark([None, 0.0, 4.0, 8.0], height) == drawn


def test_a_bar_is_full_at_its_end() -> None:
    assert [parts.bar(fraction, 4) for fraction in (0.0, 0.5, 1.0, 7.0)] == ["░░░░", "██░░", "████", "████"]


def test_columns_of_little_worth_give_way() -> None:
    columns = (
        parts.Column("a", 4, worth=9),
        parts.Column("b", 4, worth=3),
        parts.Column("c", 4, worth=5, most=10),
    )
    assert parts.chosen(columns, 30) == [(0, 4), (1, 4), (2, 10)]
    assert parts.chosen(columns, 14) == [(0, 4), (1, 4), (2, 4)]
    assert parts.chosen(columns, 13) == [(0, 4), (2, 8)]
    assert parts.chosen(columns, 3) == [(0, 3)]


def test_the_picture_in_the_readme_refers_to_nothing_elsewhere() -> None:
    svg = (ROOT / "docs" / "dashboard.svg").read_text()
    assert set(re.findall(r"""(?:url\(|href=["'])([^)"']*)""", svg)) == set(re.findall(r"#troupe-[\w-]+", svg))
    assert "Actors" in svg
