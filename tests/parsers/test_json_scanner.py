"""The scanner agrees with json.loads about what is JSON, and knows where it ends, wherever the text is cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.parsers.json_scanner import LONGEST_SCALAR, JsonScanner

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NESTED = st.lists(VALUES, max_size=3) | st.dictionaries(st.text(), VALUES, max_size=3)
INDENTS = st.sampled_from([None, 1])


def scan(pieces: str | list[str]) -> tuple[str, str]:
    """What of the text belongs to the value, and 'done', 'failed' or 'more'."""
    scanner, taken = JsonScanner(), ""
    for piece in pieces:
        end = scanner.scan(piece, 0)
        taken += piece[:end]
        if end < len(piece):
            break
    return taken, "done" if scanner.done else "failed" if scanner.failed else "more"


def is_json(text: str) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


@given(NESTED, INDENTS, st.booleans(), st.text())
def test_a_value_ends_where_it_ends(value: object, indent: int | None, ascii_only: bool, rest: str) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)

    assert scan([text + rest]) == (text, "done")
    assert scan(text + rest) == (text, "done")


@given(NESTED, st.integers(min_value=0), st.sampled_from('{}[]",:\\ \n0e-.tx'))
def test_damaged_json_is_judged_as_json_judges_it(value: object, place: int, character: str) -> None:
    text = json.dumps(value)
    place %= len(text)
    damaged = text[:place] + character + text[place + 1 :]
    taken, state = scan([damaged])

    assert (state == "done" and taken == damaged) == (is_json(damaged) and damaged[0] in "{[")
    assert scan(damaged) == (taken, state)


@given(NESTED, st.integers(min_value=0))
def test_a_beginning_of_a_value_is_not_done(value: object, place: int) -> None:
    text = json.dumps(value)
    place %= len(text)

    assert scan([text[:place]]) == (text[:place], "more")


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("01}", "01"),
        ("nul,", "nul"),
        ('"a\nb"', '"a'),
        ('"\\x"', '"\\'),
        ('"\\u00g0"', '"\\u00'),
        ("NaN", ""),
        ("'a'", ""),
    ],
)
def test_what_is_not_json_fails_at_the_first_wrong_character(text: str, taken: str) -> None:
    assert scan(text) == (taken, "failed")


def test_a_number_ends_where_something_follows_it() -> None:
    assert scan("12") == ("12", "more")
    assert scan("12 ") == ("12", "done")


def test_a_number_may_not_be_endless() -> None:
    assert scan("[" + "1" * LONGEST_SCALAR + "]")[1] == "done"
    assert scan("[" + "1" * (LONGEST_SCALAR + 1) + "]")[1] == "failed"
