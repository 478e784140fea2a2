"""The house watches its own answers: rounds of probes, alone and beside traffic, through deaths, and what follows."""

from collections.abc import Callable

import anyio
import pytest

from actors import messages as m
from actors.base import Actor
from actors.company import Boxes, Company, make_divergence_probe
from actors.snapshots import ActorSnapshot, ProbeSnapshot, SchedulerSnapshot
from actors.system import House
from runtime.engine import commands as c
from runtime.settings import Settings
from runtime.types import DivergenceAction, DivergenceCause, RuntimeMode
from tests.fakes import DisturbedEngine, FakeEngine, fake_output
from tests.house.opening import all_free, converse, dies_at, open_house, output, restarts, until

pytestmark = pytest.mark.anyio

PROMPTS = tuple(tuple(range(number, number + 20 + 3 * number)) for number in range(1, 5))
COMPANY, CACHE, TRAFFIC = DivergenceCause.COMPANY, DivergenceCause.CACHE, DivergenceCause.TRAFFIC
OFTEN = Settings(batch_divergence_monitor=True, batch_divergence_interval=0.2)
SERIALISE = OFTEN.model_copy(update={"batch_divergence_action": DivergenceAction.SERIALIZE})


def probe(house: House) -> ProbeSnapshot:
    shown = house.snapshot().probe
    assert shown
    return shown


def shows(house: House, condition: Callable[[SchedulerSnapshot], bool]) -> bool:
    """Whether the Scheduler lives, and is as the condition says."""
    shown = house.snapshot().scheduler
    return shown is not None and condition(shown)


async def rounds(house: House, number: int) -> ProbeSnapshot:
    """So many have come to a result."""
    with anyio.fail_after(20):
        await until(lambda: probe(house).rounds >= number)
    return probe(house)


async def serialised(house: House) -> None:
    """The Scheduler has heard of it."""
    with anyio.fail_after(10):
        await until(lambda: shows(house, lambda it: it.serialised))


async def talk(house: House, name: str, *, turns: int = 1000, max_tokens: int = 20) -> None:
    """A client that asks again and again, and checks what it is told."""
    for turn in range(turns):
        prompt = (100 + turn % 7, len(name), *range(10, 20))
        assert output(await converse(house, f"{name}-{turn}", prompt, max_tokens)) == fake_output(prompt, max_tokens)


async def test_on_an_idle_house_a_round_runs_to_its_end_and_leaves_no_trace_in_the_counts() -> None:
    engine = FakeEngine()
    async with open_house(lambda: engine, settings=OFTEN) as house:
        house.probe_with(PROMPTS)
        shown = await rounds(house, 1)
        assert {cause: tally.agreement for cause, tally in shown.tallies.items()} == {COMPANY: 1.0, CACHE: 1.0}
        assert shown.tallies[COMPANY].compared_tokens == 8 * 32
        assert shown.tallies[COMPANY].largest_logprob_difference == 0.0
        assert (shown.diverged, shown.given_up) == (False, 0)
        whole = house.snapshot()
        assert whole.admitter
        assert whole.decode
        assert (whole.admitter.peak_open, whole.admitter.requests_closed, whole.decode.produced_tokens) == (0, 0, 0)
        assert whole.scheduler
        assert whole.scheduler.mode is RuntimeMode.SIMPLE
        assert whole.engine


async def test_without_the_monitor_nothing_is_probed() -> None:
    async with open_house() as house:
        house.probe_with(PROMPTS)
        await converse(house, "r1", (1, 2, 3))
        shown = house.snapshot()
        assert shown.probe is None
        assert shown.mailboxes["divergence_probe"].depth == 0


async def test_beside_traffic_rounds_come_to_an_end_and_samples_of_it_are_computed_again() -> None:
    settings = OFTEN.model_copy(update={"batch_divergence_sample": 2})
    async with open_house(settings=settings) as house:
        async with anyio.create_task_group() as traffic:
            for name in ("a", "bb", "ccc"):
                traffic.start_soon(talk, house, name)
            await talk(house, "dddd", turns=4)
            house.probe_with(PROMPTS)
            shown = await rounds(house, 1)
            traffic.cancel_scope.cancel()
        assert {cause: tally.agreement for cause, tally in shown.tallies.items()} == {COMPANY: 1, CACHE: 1, TRAFFIC: 1}
        assert not shown.diverged


async def test_an_engine_death_ends_a_round_and_the_next_one_comes_to_its_end() -> None:
    async with open_house(dies_at([10]), settings=OFTEN) as house:
        house.probe_with(PROMPTS)
        shown = await rounds(house, 1)
        assert (restarts(house), shown.given_up) == (1, 1)
        assert shown.tallies[COMPANY].agreement == 1.0
        await all_free(house)


class Mortal(Actor[m.ProbeWord]):
    """A probe that dies in its first round."""

    def __init__(self, probe: Actor[m.ProbeWord]) -> None:
        self.probe = probe

    def receive(self, message: m.ProbeWord) -> None:
        self.probe.receive(message)
        shown = self.snapshot()
        if isinstance(shown, ProbeSnapshot) and shown.under_way:
            raise RuntimeError("planted: the probe died")

    def snapshot(self) -> ActorSnapshot:
        return self.probe.snapshot()


async def test_a_probe_that_died_knows_again_what_it_needs() -> None:
    lives: list[Actor[m.ProbeWord]] = []

    def make(boxes: Boxes, settings: Settings) -> Actor[m.ProbeWord]:
        made = make_divergence_probe(boxes, settings)
        lives.append(made if lives else Mortal(made))
        return lives[-1]

    async with open_house(settings=OFTEN, company=Company(divergence_probe=make)) as house:
        house.probe_with(PROMPTS)
        await rounds(house, 1)
        assert house.snapshot().restarts == {"engine_room": 0, "observers": 1}
        assert any("the probe died" in trouble.text for trouble in house.snapshot().troubles)


class Watched(DisturbedEngine):
    """Knows how many sequences of users it has had at once: theirs begin with an id of 100 or more."""

    peak = 0

    def execute(self, command: c.Command) -> c.Result:
        result = super().execute(command)
        rows = sum(row.history[0] >= 100 for row in self.rows.values())
        self.peak = max(self.peak, rows + sum(cache[0] >= 100 for cache in self.caches.values()))
        return result


async def test_a_planted_divergence_is_found_acted_on_and_cleared_when_it_ends_under_load() -> None:
    engine = Watched()
    async with open_house(lambda: engine, settings=SERIALISE) as house:
        house.probe_with(PROMPTS)
        shown = await rounds(house, 1)
        assert shown.diverged
        assert shown.tallies[COMPANY].first_difference == 0
        assert shown.tallies[CACHE].agreement == 1.0
        await serialised(house)
        async with anyio.create_task_group() as streams:
            for number in range(8):
                streams.start_soon(lambda name: talk(house, name, turns=3), "s" * (number + 1))
        assert engine.peak == 1
        assert shows(house, lambda it: it.serialised)
        async with anyio.create_task_group() as load:
            for name in ("a", "bb", "ccc"):
                load.start_soon(talk, house, name)
            engine.disturbed = False
            with anyio.fail_after(20):
                await until(lambda: shows(house, lambda it: not it.serialised))
                await until(lambda: engine.peak > 1)
            load.cancel_scope.cancel()
        assert not probe(house).diverged


async def test_with_the_action_warn_it_is_only_said() -> None:
    async with open_house(DisturbedEngine, settings=OFTEN) as house:
        house.probe_with(PROMPTS)
        assert (await rounds(house, 1)).diverged
        assert shows(house, lambda it: not it.serialised)
        assert any("in company and alone agree in 0." in trouble.text for trouble in house.snapshot().troubles)


async def test_what_is_known_of_company_outlives_the_engine() -> None:
    """That there has been some, and that answers diverge in it."""
    dies = False

    def before(_command: c.Command) -> None:
        nonlocal dies
        if dies:
            dies = False
            raise RuntimeError("planted: the engine raised")

    def make_engine() -> FakeEngine:
        return DisturbedEngine(before=before)

    settings = SERIALISE.model_copy(update={"batch_divergence_interval": 50.0})
    async with open_house(make_engine, settings=settings) as house:
        async with anyio.create_task_group() as two:
            for name in ("a", "b"):
                two.start_soon(converse, house, name, (1, 2, 3), 100)
        house.probe_with(PROMPTS)
        await rounds(house, 1)
        await serialised(house)
        assert shows(house, lambda it: it.mode is RuntimeMode.BATCHED)
        tokens = house.snapshot().decode
        dies = True
        await talk(house, "ccc", turns=1)
        assert restarts(house) == 1
        assert shows(house, lambda it: it.mode is RuntimeMode.BATCHED and it.serialised)
        again = house.snapshot().decode
        assert tokens
        assert again
        assert tokens.produced_tokens == 200
        assert again.produced_tokens >= 220
