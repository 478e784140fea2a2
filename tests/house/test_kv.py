"""The house and its KV bytes on both event loops: what is kept, what is shared, and who goes back in line."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from random import Random

import anyio
import pytest

from actors import messages as m
from actors.replies import Replies
from actors.system import House
from runtime.engine import commands as c
from runtime.settings import Settings
from runtime.types import CacheStrategy, CancelCause, HitType, KvHandle, KvPiece, RequestId
from tests.fakes import FACTS, FakeEngine, Gate, fake_output
from tests.house.opening import all_free, ask, converse, hear, last_words, open_house, output, restarts, until

pytestmark = pytest.mark.anyio

SMALL = replace(FACTS, kv_bytes_per_token=700)
"""One MiB holds 1,497 tokens: five short sequences, or two of three steps each."""
CRAMPED = Settings(kv_memory_mb=1, prefill_chunk=64)

PROMPTS = {f"r{i}": (i, *range(20, 150)) for i in range(1, 7)}
"""Each of them grows over 256 tokens, where it needs a second step."""


def preemptions(house: House) -> int:
    shown = house.snapshot().scheduler
    return shown.preemptions if shown else 0


def cached(heard: list[m.Reply]) -> int:
    finished = heard[-1]
    assert isinstance(finished, m.Finished)
    return finished.usage.cached_tokens


def prefilled(counted: list[int]) -> Callable[[c.Command], None]:
    """Counts the tokens that an engine computes of prompts."""

    def before(command: c.Command) -> None:
        if isinstance(command, c.Prefill):
            counted.append(sum(len(piece.token_ids) for piece in command.slices))

    return before


@dataclass
class Doom:
    """Called before each command of an engine, it raises in one decode step, and never again."""

    steps_left: float = inf

    def __call__(self, command: c.Command) -> None:
        self.steps_left -= isinstance(command, c.Decode)
        if self.steps_left < 0:
            self.steps_left = inf
            raise RuntimeError("planted: the engine raised mid-step")


@pytest.mark.parametrize("capacity", [1000, 2], ids=["quick readers", "slow readers"])
@pytest.mark.parametrize("trimmable", [True, False])
async def test_where_kv_bytes_run_out_all_finish_with_every_token_once(trimmable: bool, capacity: int) -> None:
    facts = replace(SMALL, trimmable=trimmable)
    async with open_house(lambda: FakeEngine(facts), settings=CRAMPED) as house:
        with Replies(capacity=capacity) as replies:
            house.admit(tuple(ask(house, replies, name, prompt, max_tokens=300) for name, prompt in PROMPTS.items()))
            if capacity == 2:
                await all_free(house)
            heard = await hear(replies)
        for name, prompt in PROMPTS.items():
            assert output(heard[name]) == fake_output(prompt, 300)
            (finished,) = last_words(heard[name])
            assert isinstance(finished, m.Finished)
            assert finished.usage == m.Usage(len(prompt), finished.usage.cached_tokens, 300)
        await all_free(house)
        assert preemptions(house) > 0
        assert restarts(house) == 0


async def test_who_is_cancelled_while_others_go_back_and_forth_gets_one_last_word() -> None:
    async with open_house(lambda: FakeEngine(SMALL), settings=CRAMPED) as house:
        with Replies(capacity=1000) as replies:
            house.admit(tuple(ask(house, replies, name, prompt, max_tokens=300) for name, prompt in PROMPTS.items()))
            with anyio.fail_after(10):
                await until(lambda: preemptions(house))
            for name in ("r5", "r6"):
                house.cancel(RequestId(name), CancelCause.CLIENT_LEFT)
            heard = await hear(replies)
        for name, prompt in PROMPTS.items():
            (word,) = last_words(heard[name])
            assert isinstance(word, m.Cancelled if name in ("r5", "r6") else m.Finished)
            tokens = output(heard[name])
            assert tokens == fake_output(prompt, len(tokens))
        await all_free(house)


async def test_an_engine_death_while_somebody_is_back_in_line_costs_no_token() -> None:
    doom = Doom()
    async with open_house(lambda: FakeEngine(SMALL, before=doom), settings=CRAMPED) as house:
        with Replies(capacity=2) as replies:
            house.admit(tuple(ask(house, replies, name, prompt, max_tokens=300) for name, prompt in PROMPTS.items()))
            with anyio.fail_after(10):
                await until(lambda: preemptions(house))
            doom.steps_left = 0
            with anyio.fail_after(10):
                await until(lambda: restarts(house))
            heard = await hear(replies)
        for name, prompt in PROMPTS.items():
            assert output(heard[name]) == fake_output(prompt, 300)
            assert len(last_words(heard[name])) == 1


async def test_of_two_with_one_prompt_at_once_the_second_begins_with_what_the_first_computed() -> None:
    prompt = tuple(range(10, 310))
    async with open_house(settings=Settings(prefill_chunk=16)) as house:
        with Replies() as replies:
            house.admit(tuple(ask(house, replies, name, prompt) for name in ("r1", "r2")))
            heard = await hear(replies)
        assert [cached(heard[name]) for name in ("r1", "r2")] == [0, 299]
        assert output(heard["r1"]) == output(heard["r2"]) == fake_output(prompt, 5)
        await all_free(house)
        hits = house.snapshot().cache.hits  # type: ignore[union-attr]
        assert {hit_type: number for hit_type, number in hits.items() if number} == {HitType.MISS: 1, HitType.PREFIX: 1}


async def test_many_on_one_system_prompt_at_once_have_it_computed_once() -> None:
    system, tail, users = tuple(range(10, 510)), tuple(range(600, 620)), 30
    counted: list[int] = []
    async with open_house(lambda: FakeEngine(before=prefilled(counted)), settings=Settings(prefill_chunk=64)) as house:
        prompts = {f"r{i}": (*system, 700 + i, *tail) for i in range(users)}
        with Replies() as replies:
            house.admit(tuple(ask(house, replies, name, prompt) for name, prompt in prompts.items()))
            heard = await hear(replies)
        assert all(output(heard[name]) == fake_output(prompt, 5) for name, prompt in prompts.items())
        once = len(system) + users * len(tail)  # the last id of each is left to its first step
        turns_until_it_is_found = 3
        assert once <= sum(counted) <= once + turns_until_it_is_found * 64


async def test_the_second_turn_finds_the_end_of_the_reply_before_the_engine_has_stored_it() -> None:
    async with open_house() as house:
        prompt = tuple(range(10, 110))
        first = await converse(house, "r1", prompt, max_tokens=40)
        second = await converse(house, "r2", (*prompt, *output(first), 7, 8))
        assert cached(second) == 139
        assert output(second) == fake_output((*prompt, *output(first), 7, 8), 5)


async def test_what_is_on_disk_outlives_the_engine() -> None:
    disk: dict[KvHandle, KvPiece] = {}
    doom = Doom()
    prompt = tuple(range(10, 210))
    settings = Settings(cache_dir="kept")
    async with open_house(lambda: FakeEngine(disk=disk, before=doom), settings=settings) as house:
        await converse(house, "r1", prompt)
        await all_free(house)
        doom.steps_left = 0
        await converse(house, "r2", (1, 2, 3))
        assert restarts(house) == 1
        assert cached(await converse(house, "r3", (*prompt, 7))) == 200


async def test_what_is_to_be_cleared_while_the_engine_dies_is_cleared_by_the_next() -> None:
    disk: dict[KvHandle, KvPiece] = {}
    clears: list[c.Command] = []

    def dies_clearing(command: c.Command) -> None:
        if isinstance(command, c.ClearKv):
            clears.append(command)
            if len(clears) == 1:
                raise RuntimeError("planted: the engine raised while it cleared")

    settings = Settings(cache_dir="kept")
    async with open_house(lambda: FakeEngine(disk=disk, before=dies_clearing), settings=settings) as house:
        await converse(house, "r1", tuple(range(10, 210)))
        await all_free(house)
        told: list[int] = []
        house.clear_cache(lambda: told.append(len(disk)))
        with anyio.fail_after(10):
            await until(lambda: told)
        house.clear_cache(lambda: told.append(len(disk)))
        with anyio.fail_after(10):
            await until(lambda: len(told) == 2)
        assert (told, restarts(house), len(clears)) == ([0, 0], 1, 3)


async def test_what_is_to_be_cleared_while_there_is_no_engine_is_cleared_by_the_next() -> None:
    gate = Gate(c.LoadModel)
    doom = Doom()
    first = True

    def before(command: c.Command) -> None:
        nonlocal first
        if not first:
            gate(command)
        first = False if isinstance(command, c.LoadModel) else first
        doom(command)

    async with open_house(lambda: FakeEngine(before=before)) as house:
        await converse(house, "r1", tuple(range(10, 210)))
        await all_free(house)
        before_death = house.snapshot().cache
        assert before_death
        doom.steps_left = 0
        with Replies() as replies:
            house.admit((ask(house, replies, "r2"),))
            with anyio.fail_after(10):
                await until(gate.reached.is_set)
            cleared = anyio.Event()
            house.clear_cache(cleared.set)
            dead = house.snapshot().cache
            assert dead
            assert (dead.strategy, dead.hits, dead.entries) == (CacheStrategy.PAGED, before_death.hits, 0)
            gate.open()
            with anyio.fail_after(10):
                await cleared.wait()
            await hear(replies)


async def test_what_was_counted_in_one_life_of_the_engine_counts_in_the_next() -> None:
    doom = Doom()
    async with open_house(lambda: FakeEngine(SMALL, before=doom), settings=CRAMPED) as house:
        with Replies(capacity=1000) as replies:
            house.admit(tuple(ask(house, replies, name, prompt, max_tokens=300) for name, prompt in PROMPTS.items()))
            await hear(replies)
        await all_free(house)
        before = house.snapshot().cache
        assert before
        gone_back = preemptions(house)
        assert gone_back > 0
        assert before.evictions > 0
        assert sum(before.hits.values()) == len(PROMPTS)
        doom.steps_left = 0
        await converse(house, "r9", (1, 2, 3))
        await all_free(house)
        after = house.snapshot().cache
        assert after
        assert (restarts(house), preemptions(house), after.evictions) == (1, gone_back, before.evictions)
        assert sum(after.hits.values()) == len(PROMPTS) + 1


async def test_where_hardly_anything_is_free_a_line_says_so_and_requests_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    facts = replace(FACTS, memory_bytes=100 << 20, free_bytes=0)
    with caplog.at_level("WARNING", logger="troupe.engine_room"):
        async with open_house(lambda: FakeEngine(facts)) as house:
            heard = await converse(house, "r1", tuple(range(10, 3010)))
            assert output(heard) == fake_output(range(10, 3010), 5)
    lines = [line for line in caplog.messages if line.startswith("hardly any memory is free")]
    assert lines == ["hardly any memory is free: KV caches may take 5 MiB all the same; others may be using it"]


async def test_a_cache_that_is_off_is_said_to_be_off(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="troupe.engine_room"):
        async with open_house(settings=Settings(cache_memory_mb=0)):
            assert caplog.messages.count("the prefix cache is off: it may take no memory") == 1


class Crowd:
    """Random conversations, cancels and clears in a house."""

    def __init__(self, house: House, seed: int) -> None:
        self.house = house
        self.random = Random(seed)
        self.transcripts = [tuple(range(10 * i, 10 * i + 150)) for i in range(1, 4)]
        self.asked: dict[str, m.Request] = {}
        self.heard: dict[str, list[m.Reply]] = {}

    async def converse(self, name: str) -> None:
        random = self.random
        prompt = random.choice(self.transcripts)
        prompt = (*prompt[: random.randint(1, len(prompt))], 2, *range(30, random.randint(31, 120)))
        tokens = random.choice([5, 60, 150])
        self.transcripts.append((*prompt, *fake_output(prompt, tokens)))
        with Replies(capacity=random.choice([2, 1000])) as replies:
            self.asked[name] = ask(self.house, replies, name, prompt, max_tokens=tokens)
            self.house.admit((self.asked[name],))
            if random.random() < 0.2:
                self.house.cancel(RequestId(name), CancelCause.CLIENT_LEFT)
            if random.random() < 0.1:
                self.house.clear_cache(lambda: None)
            self.heard |= await hear(replies)

    def check(self) -> None:
        for name, request in self.asked.items():
            (word,) = last_words(self.heard[name])
            tokens = output(self.heard[name])
            expected = fake_output(request.prompt_ids, request.sampling.max_tokens)
            assert tokens == (expected if isinstance(word, m.Finished) else expected[: len(tokens)])
            assert isinstance(word, m.Finished | m.Cancelled)


@pytest.mark.parametrize(
    ("strategy", "trimmable"),
    [
        (CacheStrategy.PAGED, True),
        (CacheStrategy.MEMORY_AWARE, True),
        (CacheStrategy.LEGACY, True),
        (CacheStrategy.AUTO, False),
    ],
)
async def test_a_crowd_is_served_through_deaths_cancels_and_clears(strategy: CacheStrategy, trimmable: bool) -> None:
    settings = Settings(kv_memory_mb=1, prefill_chunk=64, cache_strategy=strategy, max_concurrency=8)
    facts = replace(SMALL, trimmable=trimmable)
    doom = Doom(steps_left=300)
    async with open_house(lambda: FakeEngine(facts, before=doom), settings=settings) as house:
        crowd = Crowd(house, seed=5)
        async with anyio.create_task_group() as group:
            for i in range(40):
                group.start_soon(crowd.converse, f"r{i}")
        crowd.check()
        await all_free(house)
        assert restarts(house) == 1
