"""Snapshots in, figures out."""

from dataclasses import replace

import pytest

from actors.snapshots import DecodeSnapshot, HouseSnapshot, RoomState
from api.dashboard import words
from api.dashboard.actors import ActorRow
from api.dashboard.model import Figures, Model, Phase
from api.dashboard.trends import SAMPLES, Recorder
from tests.api.dashboard.houses import ACTORS, busy, moments


def figures(*houses: HouseSnapshot) -> Figures:
    """Those of the last of them."""
    model = Model(1.0)
    return [model.take(house) for house in houses][-1]


def actor(found: Figures, name: str) -> ActorRow:
    return next(row for row in found.actors if row.name == name)


def test_rates_are_differences_over_the_time_between_two_snapshots() -> None:
    found = figures(*moments((10.0, 12.0), requests=34))
    assert {row.name: row.handled_per_s for row in found.actors} == dict.fromkeys(ACTORS, 20.0)
    assert found.tokens_per_s == 320.0
    assert {row.tokens_per_s for row in found.requests if row.phase is Phase.PREFILL} == {50.0}


def test_the_first_snapshot_has_no_rates() -> None:
    found = figures(busy(34))
    assert {row.handled_per_s for row in found.actors} == {None}
    assert found.tokens_per_s is None


def test_a_server_that_was_restarted_begins_its_differences_anew() -> None:
    later = replace(busy(3, 500.0), at=2000.0, uptime_s=2.0)
    assert figures(busy(3, 400.0), later).tokens_per_s is None
    assert actor(figures(busy(3, 400.0), later), "scheduler").handled_per_s is None


def test_a_decode_worker_that_counts_from_nothing_again_has_no_speed_for_once() -> None:
    after = replace(busy(3, 12.0), decode=DecodeSnapshot((), 5))
    assert figures(busy(3, 10.0), after).tokens_per_s is None


def test_requests_are_told_in_the_order_of_their_coming_with_phase_and_age() -> None:
    found = figures(busy(36, 10.0))
    assert [row.phase for row in found.requests] == [Phase.DECODE] * 32 + [Phase.PREFILL] * 2 + [Phase.WAITING] * 2
    assert {row.age_s for row in found.requests} == {11.0}
    assert found.requests[0].progress == pytest.approx(100 / 2000)
    assert found.requests[-1].progress == 0.0


def test_a_server_that_does_not_tell_when_requests_came_is_shown_without_ages() -> None:
    house = busy(2)
    assert house.admitter
    found = figures(replace(house, admitter=replace(house.admitter, arrived_at=())))
    assert [row.age_s for row in found.requests] == [None, None]


def test_an_actor_without_a_snapshot_is_dead_and_the_cache_dies_with_its_room() -> None:
    house = replace(busy(), scheduler=None, prefill=None, decode=None, room=RoomState.RESTARTING)
    lives = {row.name: row.life for row in figures(house).actors}
    assert [name for name, life in lives.items() if life == "dead"] == list(ACTORS[1:5])
    assert lives["request_admitter"] == "alive"


def test_before_the_model_is_loaded_actors_are_starting() -> None:
    house = replace(busy(), scheduler=None, room=RoomState.LOADING)
    assert actor(figures(house), "scheduler").life == "starting"


def test_a_probe_that_never_heard_anything_is_off_and_one_that_did_is_dead() -> None:
    house = replace(busy(), probe=None)
    assert actor(figures(house), "divergence_probe").life == "off"
    assert actor(figures(replace(busy(at=10.0), probe=None)), "divergence_probe").life == "dead"


def test_an_actor_that_the_dashboard_does_not_know_is_shown_with_its_mailbox() -> None:
    house = busy()
    found = figures(replace(house, mailboxes={**house.mailboxes, "prompter": house.mailboxes["scheduler"]}))
    assert actor(found, "prompter").depth == 2


def test_restarts_are_those_of_an_actors_supervisor() -> None:
    found = figures(replace(busy(), restarts={"engine_room": 2, "observers": 5}))
    assert [row.restarts for row in found.actors] == [None, 2, 2, 2, 2, 5, 5]


def test_a_trend_is_newest_on_the_right_and_blank_before_its_first_sample() -> None:
    recorder = Recorder()
    for sample in (1.0, None, 3.0):
        recorder.take(sample)
    assert recorder.trend().cells(SAMPLES)[-4:] == [None, 1.0, None, 3.0]


def test_a_cell_of_a_trend_does_not_change_as_it_moves() -> None:
    recorder = Recorder()
    stretch = 10
    for sample in range(stretch * 3):
        recorder.take(float(sample))
    before = recorder.trend().cells(SAMPLES // stretch)
    recorder.take(99.0)
    assert recorder.trend().cells(SAMPLES // stretch)[:-1] == before[1:]
    assert before[-3:] == [4.5, 14.5, 24.5]


def test_a_trend_forgets_what_is_too_long_ago() -> None:
    recorder = Recorder()
    for sample in range(SAMPLES + 5):
        recorder.take(float(sample))
    trend = recorder.trend()
    assert (len(trend.samples), trend.samples[0], trend.highest()) == (SAMPLES, 5.0, SAMPLES + 4.0)
    assert trend.cells(SAMPLES // 10)[-2:] == [SAMPLES - 5.5, SAMPLES + 2.0]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (words.count(None), "–"),
        (words.count(99_999), "99999"),
        (words.count(123_456), "123k"),
        (words.count(12_345_678), "12M"),
        (words.rate(12.34), "12.3"),
        (words.rate(1234.5), "1234"),
        (words.size(1023), "1023 B"),
        (words.size(3 << 20), "3 MiB"),
        (words.size(5 << 29), "2.5 GiB"),
        (words.seconds(0.0042), "4.2 ms"),
        (words.seconds(0.25), "250 ms"),
        (words.seconds(59.94), "59.9 s"),
        (words.seconds(3661), "1 h 01 min"),
        (words.clock(61), "1:01"),
        (words.clock(3661), "1:01:01"),
        (words.percent(0.256), "26 %"),
        (words.several(1, "entry", "entries"), "1 entry"),
        (words.several(2, "entry", "entries"), "2 entries"),
        (words.short_id("chatcmpl-d59057e59995d8fb831d46b1-12"), "chatcmpl-d59057e5-12"),
        (words.short_id("a"), "a"),
        (words.short_id("a-name-of-another-server-altogether-"), "a-name-of--"),
    ],
)
def test_figures_are_written_short(written: str, text: str) -> None:
    assert written == text
