"""The benchmark measures what it says it measures, on a real server with a tiny model."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import httpx
import pytest

from api.bench import scenarios as sc
from api.bench.client import Streamed, Target, user
from api.bench.prefixes import prefixes, restarted
from api.bench.report import Figures, table
from tests.e2e.process import ServerProcess

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def figures(target: Target) -> Figures:
    return Figures(
        throughput={n: await sc.throughput(target, n, max_tokens=12) for n in (1, 3)},
        stall=await sc.stall(target, streams=2, prompt_tokens=300, warm_chunks=10, max_tokens=1900),
        prefixes=await prefixes(target, shared_tokens=100, rounds=2),
        health=await sc.health(target, streams=3, prompt_tokens=100, max_tokens=100),
    )


async def test_every_scenario_gives_plausible_figures(tiny_server: ServerProcess) -> None:
    with anyio.fail_after(60):
        found = await figures(Target(tiny_server.url))
    assert all(0 < value < 1e5 for value in found.rows().values())
    assert found.stall.longest_gap_s >= found.stall.usual_gap_s
    assert found.health.calls > 0
    lines = table({"one": found, "other": found}, {"raw loop": 3.0}).splitlines()
    assert lines[0] == "| | one | other | ratio |"
    assert all(line.endswith("| 1.00 |") for line in lines[2:-1])


async def test_the_cost_of_structure_is_that_of_streams_that_all_run_to_their_end(tiny_server: ServerProcess) -> None:
    with anyio.fail_after(60):
        found = await sc.structure(Target(tiny_server.url), streams=2, max_tokens=40, rounds=1)
    assert found.free_tokens_per_s > 1
    assert found.constrained_tokens_per_s > 1
    held = await Target(tiny_server.url).chat([user("People.")], 40, sc.PEOPLE)
    assert held.tokens == 40


def test_a_restart_is_measured_with_the_same_chats(tiny_server: ServerProcess) -> None:
    starts: list[int] = []

    @contextmanager
    def start() -> Iterator[Target]:
        starts.append(len(starts))
        yield Target(tiny_server.url)

    found = restarted(start, shared_tokens=600, rounds=3)
    assert starts == [0, 1]
    assert 0 < found.again_s < found.cold_s


def test_the_text_of_a_reply_is_put_together_from_its_chunks(tiny_server: ServerProcess) -> None:
    chat = [user('Tell me about "quotes" and\nlines.')]
    streamed = anyio.run(Target(tiny_server.url).chat, chat, 30)
    whole = httpx.post(
        f"{tiny_server.url}/v1/chat/completions", json={"messages": chat, "max_tokens": 30, "temperature": 0}
    )
    assert streamed.text == whole.json()["choices"][0]["message"]["content"]


async def test_tokens_are_counted_as_the_server_counts_them(tiny_server: ServerProcess) -> None:
    (result,) = await sc.together(Target(tiny_server.url), ["Once"], 17)
    assert result.tokens == 17
    assert 0 < len(result.arrivals) <= 17


async def test_a_server_that_does_not_finish_a_stream_is_an_error_not_a_figure(tiny_server: ServerProcess) -> None:
    with pytest.raises(sc.BenchError, match="did not finish"):
        await sc.together(Target(tiny_server.url), ["word " * 5000], 5)


def test_gaps_are_those_that_overlap_a_time() -> None:
    stream = Streamed(0.0, arrivals=[1.0, 2.0, 4.0])
    assert sc._gaps(stream, 1.5, 3.0) == [1.0, 2.0]
    assert sc._gaps(stream, 4.5, 9.0) == [5.0]
    stream.ended_at = 4.0
    assert sc._gaps(stream, 4.5, 9.0) == []
