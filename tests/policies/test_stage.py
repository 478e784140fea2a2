"""Who comes on stage next, who makes way, and how many run at once."""

import pytest

from actors.policies.mode import mode_after, mode_at_first, shown
from actors.policies.stage import PATIENCE, Scene, Who, next_on, to_make_way
from runtime.types import RuntimeMode

AUTO, SIMPLE, BATCHED = RuntimeMode.AUTO, RuntimeMode.SIMPLE, RuntimeMode.BATCHED
USER, BACKGROUND = Who.USER, Who.BACKGROUND


@pytest.mark.parametrize(
    ("scene", "comes"),
    [
        (Scene(4), None),
        # Together.
        (Scene(4, user_waits=True), USER),
        (Scene(4, users=3, user_waits=True), USER),
        (Scene(4, users=4, user_waits=True), None),
        (Scene(4, users=2, background=2, user_waits=True), None),
        (Scene(4, users=2, user_waits=True, starved=True, background_waits=True, passed_over=PATIENCE), None),
        (Scene(4, users=2, user_waits=True, barred=True, background_waits=True, passed_over=PATIENCE), None),
        (Scene(4, user_waits=True, background_waits=True, passed_over=PATIENCE), USER),
        (Scene(4, background_waits=True), BACKGROUND),
        (Scene(4, background=3, background_waits=True), BACKGROUND),
        (Scene(4, background=4, background_waits=True), None),
        (Scene(4, users=1, background_waits=True, passed_over=PATIENCE - 1), None),
        (Scene(4, users=1, background_waits=True, passed_over=PATIENCE), BACKGROUND),
        (Scene(4, users=1, background=3, background_waits=True, passed_over=PATIENCE), None),
        # One user at a time.
        (Scene(4, alone=True, user_waits=True), USER),
        (Scene(4, alone=True, users=1, user_waits=True), None),
        (Scene(4, alone=True, users=1, background_waits=True, passed_over=PATIENCE), None),
        (Scene(4, alone=True, background=1, user_waits=True), None),
        (Scene(4, alone=True, background=1, user_waits=True, background_waits=True), None),
        (Scene(4, alone=True, background_waits=True), BACKGROUND),
        (Scene(4, alone=True, background=3, background_waits=True), BACKGROUND),
        (Scene(4, alone=True, user_waits=True, background_waits=True), USER),
        (Scene(4, alone=True, user_waits=True, background_waits=True, passed_over=PATIENCE), BACKGROUND),
        (Scene(4, alone=True, background=1, user_waits=True, passed_over=PATIENCE), None),
        (Scene(4, alone=True, background=1, user_waits=True, background_waits=True, passed_over=PATIENCE), BACKGROUND),
        (Scene(4, alone=True, user_waits=True, passed_over=PATIENCE), USER),
        (Scene(4, alone=True, user_waits=True, starved=True), None),
        # One seat.
        (Scene(1, alone=True, background=1, background_waits=True), None),
    ],
)
def test_who_comes_on_next(scene: Scene, comes: Who | None) -> None:
    assert next_on(scene) is comes


@pytest.mark.parametrize(
    ("scene", "leave"),
    [
        (Scene(4, background=2), 0),
        (Scene(4, users=2, user_waits=True), 0),
        # Together: one for each who finds no seat, or no room.
        (Scene(4, users=1, background=2, user_waits=True), 0),
        (Scene(4, users=2, background=2, user_waits=True), 1),
        (Scene(4, users=2, background=2, user_waits=True, leaving=True), 0),
        (Scene(4, users=2, background=2, user_waits=True, barred=True), 0),
        (Scene(4, users=1, background=1, user_waits=True, starved=True), 1),
        (Scene(4, users=2, background=2, user_waits=True, passed_over=PATIENCE), 1),
        # One user at a time: all, unless they have been patient, or would make way for nobody.
        (Scene(4, alone=True, background=3, user_waits=True), 3),
        (Scene(4, alone=True, background=3, user_waits=True, leaving=True), 3),
        (Scene(4, alone=True, background=3, user_waits=True, passed_over=PATIENCE), 0),
        (Scene(4, alone=True, users=2, background=2, user_waits=True), 0),
    ],
)
def test_how_many_of_the_background_make_way(scene: Scene, leave: int) -> None:
    assert to_make_way(scene) == leave


@pytest.mark.parametrize(
    ("mode", "requests", "threshold", "after"),
    [
        (AUTO, 0, 2, AUTO),
        (AUTO, 1, 2, AUTO),
        (AUTO, 2, 2, BATCHED),
        (AUTO, 1, 1, BATCHED),
        (AUTO, 3, 4, AUTO),
        (BATCHED, 0, 2, BATCHED),
        (SIMPLE, 100, 2, SIMPLE),
    ],
)
def test_auto_becomes_batched_where_requests_meet(
    mode: RuntimeMode, requests: int, threshold: int, after: RuntimeMode
) -> None:
    assert mode_after(mode, requests=requests, threshold=threshold) is after


@pytest.mark.parametrize(
    ("wanted", "batchable", "was_batched", "first"),
    [
        (AUTO, True, False, AUTO),
        (AUTO, True, True, BATCHED),
        (AUTO, False, True, SIMPLE),
        (SIMPLE, True, True, SIMPLE),
        (BATCHED, True, False, BATCHED),
        (BATCHED, False, False, SIMPLE),
    ],
)
def test_a_life_begins_as_wanted_as_far_as_the_model_can(
    wanted: RuntimeMode, batchable: bool, was_batched: bool, first: RuntimeMode
) -> None:
    assert mode_at_first(wanted, batchable=batchable, was_batched=was_batched) is first


def test_what_is_shown_is_simple_or_batched() -> None:
    assert [shown(mode) for mode in (AUTO, SIMPLE, BATCHED)] == [SIMPLE, SIMPLE, BATCHED]
