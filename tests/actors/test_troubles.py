"""What is kept of the log for those who watch the house."""

import logging
from collections.abc import Iterator
from threading import Thread

import pytest

from actors.snapshots import Trouble
from actors.troubles import LONGEST_TEXT, MOST_KEPT, Troubles

log = logging.getLogger("troupe.test_troubles")


class Watch:
    """A clock that a test sets."""

    now = 1.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def troubles(watch: Watch) -> Iterator[Troubles]:
    kept = Troubles(watch)
    logging.getLogger("troupe").addHandler(kept)
    yield kept
    logging.getLogger("troupe").removeHandler(kept)


def test_a_warning_is_kept_with_who_said_it_and_when(troubles: Troubles) -> None:
    log.warning("%d MiB are free", 7)
    assert troubles.recent() == (Trouble(1.0, "warning", "test_troubles", "7 MiB are free"),)


def test_what_is_less_than_a_warning_is_not_kept(troubles: Troubles) -> None:
    log.info("all is well")
    assert troubles.recent() == ()


def test_the_last_ones_are_kept_oldest_first(troubles: Troubles) -> None:
    for number in range(MOST_KEPT + 5):
        log.error("error %d", number)
    assert [each.text for each in troubles.recent()] == [f"error {number}" for number in range(5, MOST_KEPT + 5)]


def test_a_line_that_repeats_is_kept_once_with_its_last_time(troubles: Troubles, watch: Watch) -> None:
    log.warning("again")
    watch.now = 9.0
    log.warning("again")
    assert [(each.at, each.text) for each in troubles.recent()] == [(9.0, "again")]


def test_a_line_that_comes_back_after_another_is_kept_twice(troubles: Troubles) -> None:
    for text in ("a", "b", "a"):
        log.warning(text)
    assert [each.text for each in troubles.recent()] == ["a", "b", "a"]


def test_a_text_is_one_line_that_steers_no_terminal(troubles: Troubles) -> None:
    log.warning("one\ntwo\x1b[31m\tthree")
    assert troubles.recent()[0].text == "one two [31m three"


def test_a_long_text_is_cut(troubles: Troubles) -> None:
    log.warning("x" * 1000)
    text = troubles.recent()[0].text
    assert len(text) == LONGEST_TEXT
    assert text.endswith("x…")


def test_no_traceback_is_kept(troubles: Troubles) -> None:
    log.error("it raised", exc_info=ValueError("a secret"))
    assert troubles.recent()[0].text == "it raised"


def test_threads_may_log_while_somebody_looks(troubles: Troubles) -> None:
    def say() -> None:
        for number in range(500):
            log.warning("warning %d", number)

    threads = [Thread(target=say) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(troubles.recent()) <= MOST_KEPT
    assert len(troubles.recent()) == MOST_KEPT
