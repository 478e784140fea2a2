"""Stop strings: what comes out is the text before the first of them, wherever the text was cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.text.stop_strings import StopStrings


def run(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    matcher = StopStrings(stops)
    text = "".join(matcher.feed(piece) for piece in pieces)
    return text + matcher.release(), matcher.found


def before_first_stop(stops: list[str], text: str) -> tuple[str, str | None]:
    """The definition, spelled out: the stop string that is complete first; of several at once, the longest."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        ([], "all of it", "all of it"),
        (["END"], "no stop here", "no stop here"),
        (["END"], "beforeENDafter", "before"),
        (["END"], "ENDafter", ""),
        (["END"], "EEND", "E"),
        (["aab"], "aaab", "a"),
        (["abcd", "bc"], "abcd", "a"),
        (["cd", "abcd"], "xabcd", "x"),
        (["abab"], "ababab", ""),
        (["\n\n", "."], "One line\n\nNext.", "One line"),
        (["é"], "café", "caf"),
        (["END"], "unfinished EN", "unfinished EN"),
    ],
)
def test_text_ends_before_the_stop_string_that_is_complete_first(stops: list[str], text: str, expected: str) -> None:
    assert run(stops, [text])[0] == expected
    assert run(stops, list(text))[0] == expected


letters = st.text(alphabet="ab", max_size=40)
stop_lists = st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=4)


@given(stop_lists, st.lists(letters, max_size=12))
def test_the_output_does_not_depend_on_where_the_text_is_cut(stops: list[str], pieces: list[str]) -> None:
    assert run(stops, pieces) == before_first_stop(stops, "".join(pieces))


@given(stop_lists, letters)
def test_nothing_is_sent_that_a_stop_string_may_still_take_back(stops: list[str], text: str) -> None:
    matcher, sent = StopStrings(stops), ""
    for position, letter in enumerate(text, start=1):
        sent += matcher.feed(letter)
        assert before_first_stop(stops, text)[0].startswith(sent)
        if not matcher.found:
            held = text[len(sent) : position]
            assert any(stop.startswith(held) for stop in stops) or not held


def test_text_behind_a_stop_string_is_ignored() -> None:
    matcher = StopStrings(["."])
    assert matcher.feed("One. Two") == "One"
    assert matcher.feed(" three. Four") == ""
    assert matcher.release() == ""
    assert matcher.found


def test_a_long_stop_string_that_almost_matches_all_the_time_costs_little() -> None:
    stop = "a" * 1000 + "b"
    text, found = run([stop] * 16, ["a" * 20] * 500)
    assert text == "a" * 10_000
    assert not found
