"""A house above an engine without MLX, and how tests talk to it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from actors import messages as m
from actors.company import Company
from actors.replies import Replies
from actors.system import House
from runtime.engine import commands as c
from runtime.engine.thread import ThreadHost
from runtime.settings import Settings
from runtime.types import RequestId, Sampling
from tests.fakes import FakeEngine


@asynccontextmanager
async def open_house(
    make_engine: Callable[[], FakeEngine] = FakeEngine,
    *,
    settings: Settings | None = None,
    model: str = "tiny",
    company: Company | None = None,
) -> AsyncIterator[House]:
    def make_host() -> ThreadHost:
        return ThreadHost(lambda _beat: make_engine(), c.LoadModel(model))

    house = House(settings or Settings(), make_host, company=company)
    async with anyio.create_task_group() as group:
        group.start_soon(house.run)
        with anyio.fail_after(10):
            await house.opened()
        yield house
        group.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    """Let everyone else run until `condition` holds; the caller bounds the time."""
    while not condition():
        await anyio.sleep(0.001)


def ask(
    house: House,
    replies: Replies,
    name: str = "r1",
    prompt: tuple[int, ...] = (1, 2, 3),
    *,
    max_tokens: int = 5,
    timeout_s: float = 60.0,
    score_prompt: int | None = None,
) -> m.Request:
    now = house.now()
    request_id = RequestId(name)
    return m.Request(
        request_id=request_id,
        prompt_ids=prompt,
        sampling=Sampling(max_tokens=max_tokens, temperature=0.0),
        arrived_at=now,
        deadline=now + timeout_s,
        sink=replies.sink(request_id),
        score_prompt=score_prompt,
    )


async def hear(replies: Replies) -> dict[str, list[m.Reply]]:
    """All replies by request, until each has its last word."""
    heard: dict[str, list[m.Reply]] = {}
    with anyio.fail_after(10):
        async for reply in replies:
            heard.setdefault(reply.request_id, []).append(reply)
    return heard


def output(heard: list[m.Reply]) -> list[int]:
    return [token.token_id for r in heard if isinstance(r, m.TokensDecoded | m.Finished) for token in r.tokens]


def last_words(heard: list[m.Reply]) -> list[m.Reply]:
    return [reply for reply in heard if isinstance(reply, m.LastWord)]


async def converse(house: House, name: str, prompt: tuple[int, ...], max_tokens: int = 5) -> list[m.Reply]:
    with Replies() as replies:
        house.admit((ask(house, replies, name, prompt, max_tokens=max_tokens),))
        return (await hear(replies))[name]


async def all_free(house: House) -> None:
    """Nothing is open, leased or running any more."""

    def free() -> bool:
        shown = house.snapshot()
        assert shown.admitter
        assert shown.scheduler
        assert shown.cache
        return not (
            shown.admitter.open_requests
            or shown.scheduler.prefilling
            or shown.scheduler.decoding
            or shown.scheduler.waiting
            or shown.cache.leases
        )

    with anyio.fail_after(10):
        await until(free)


def restarts(house: House) -> int:
    return house.snapshot().restarts["engine_room"]


def dies_at(steps: list[int], kind: type[c.Command] = c.Decode) -> Callable[[], FakeEngine]:
    """Engines that raise in the middle of a step: the n-th life after `steps[n]` commands of a kind."""
    lives = iter(steps)

    def make() -> FakeEngine:
        after = next(lives, None)
        done = 0

        def before(command: c.Command) -> None:
            nonlocal done
            done += isinstance(command, kind)
            if after is not None and done > after:
                raise RuntimeError("planted: the engine raised mid-step")

        return FakeEngine(before=before)

    return make
