"""Whatever order mail and results come in: what many prompts begin with is computed once."""

from dataclasses import replace
from random import Random

import pytest

from actors import messages as m
from runtime.engine import commands as c
from runtime.types import CacheStrategy
from tests.actors.small_house import Plan, SmallHouse
from tests.fakes import FACTS

END = 2
"""The stop id that messages end with."""
BEGINNING = (*range(10, 99), *range(10, 99), END, *range(20, 99), END)
"""Two messages that all of them share: where caches cannot be cut, both are kept."""
USERS = 6


def computed(commands: list[c.Command]) -> int:
    """How many ids of prompts."""
    turns = [command for command in commands if isinstance(command, c.Prefill)]
    return sum(len(each.token_ids) for turn in turns for each in turn.slices)


def question(random: Random) -> tuple[int, ...]:
    return (*(random.randint(10, 99) for _ in range(random.randint(5, 40))), END)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("strategy", "trimmable"),
    [(CacheStrategy.PAGED, True), (CacheStrategy.MEMORY_AWARE, True), (CacheStrategy.MEMORY_AWARE, False)],
)
def test_what_many_begin_with_is_computed_once(strategy: CacheStrategy, seed: int, *, trimmable: bool) -> None:
    random = Random(seed)
    facts = replace(FACTS, trimmable=trimmable)
    plan = Plan(strategy, facts, room_tokens=100_000, keep_tokens=50_000, disk_tokens=0, concurrency=USERS)
    house = SmallHouse(plan, random)
    prompts = [BEGINNING + question(random) for _ in range(USERS)]
    for number, prompt in enumerate(prompts):
        request = house.client.request(f"r{number}", prompt, arrived_at=float(number), stop_ids=frozenset({END}))
        house.door.tell(m.Admit((request,)))
    while house.step():
        pass
    assert len(house.client.last_words()) == USERS
    beginnings = sum(len(prompt) - 1 - len(BEGINNING) for prompt in prompts)
    assert computed(house.engine.take()) <= len(BEGINNING) + beginnings
