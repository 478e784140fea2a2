"""When a prompt waits for an older one that begins the same, as a table."""

import pytest

from actors.policies.prefix_cache import WORTH_TOKENS
from actors.policies.worth_waiting import WAITED_PER_SPARED, worth_waiting

AT_ANY, ONLY_THERE = True, False
JUST = WAITED_PER_SPARED * 100
"""How long it waits to be spared 100 tokens."""


@pytest.mark.parametrize(
    ("sent", "shared", "ahead", "stops", "trimmable", "expected"),
    [
        pytest.param(0, 100, 0, (100,), AT_ANY, True, id="the same prompt"),
        pytest.param(0, 100, 0, (120,), AT_ANY, True, id="kept a little later, and cut"),
        pytest.param(0, 100, 0, (120,), ONLY_THERE, False, id="kept too late, and cannot be cut"),
        pytest.param(0, 100, 0, (80, 120), ONLY_THERE, True, id="the first of two serves"),
        pytest.param(0, 100, 0, (), AT_ANY, False, id="nothing is kept, or all is told"),
        pytest.param(0, WORTH_TOKENS, 0, (100,), AT_ANY, True, id="just enough"),
        pytest.param(0, WORTH_TOKENS - 1, 0, (100,), AT_ANY, False, id="too little in common"),
        pytest.param(0, 100, 0, (WORTH_TOKENS - 1,), AT_ANY, False, id="too little is kept"),
        pytest.param(100 - WORTH_TOKENS, 100, 0, (100,), AT_ANY, True, id="just enough is left"),
        pytest.param(101 - WORTH_TOKENS, 100, 0, (100,), AT_ANY, False, id="too little is left"),
        pytest.param(0, 100, 0, (JUST,), AT_ANY, True, id="a wait as long as it is worth"),
        pytest.param(0, 100, 0, (JUST + 1,), AT_ANY, False, id="too long a wait"),
        pytest.param(0, 100, 1, (JUST + 1,), AT_ANY, True, id="too long a wait, but for what is done of it"),
        pytest.param(20, 100, 0, (JUST - 40,), AT_ANY, False, id="too long a wait for what is left"),
        pytest.param(0, 100, 9000, (9000,), AT_ANY, True, id="kept, only not told yet"),
        pytest.param(0, 200, 0, (100, 9000), AT_ANY, True, id="the first of two comes soon"),
    ],
)
def test_a_prompt_waits_where_it_is_spared_enough_soon_enough(
    *, sent: int, shared: int, ahead: int, stops: tuple[int, ...], trimmable: bool, expected: bool
) -> None:
    assert worth_waiting(sent=sent, shared=shared, ahead=ahead, stops=stops, trimmable=trimmable) == expected
