"""The engine's process dies and hangs at random moments; no stream does, and none says anything else for it."""

import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.e2e.process import ServerProcess
from tests.tiny import make_marching_llama

STREAMS, FAULTS, TOKENS = 16, 10, 1500
PROMPTS = [f"Story number {n}: " + "word " * (n % 5) for n in range(STREAMS)]
KINDS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    tiny_model = make_marching_llama(tmp_path_factory.mktemp("marching"))
    flags = ("--engine-restarts", "50", "--engine-hang-timeout", "1.5", "--engine-load-timeout", "6")
    with ServerProcess(str(tiny_model), *flags) as running:
        yield running


def say(server: ServerProcess, prompt: str) -> tuple[str, int]:
    """What a stream says, and how many tokens its usage counts."""
    text, tokens = "", 0
    with OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=120) as client:
        for chunk in client.completions.create(
            model="default",
            prompt=prompt,
            max_tokens=TOKENS,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        ):
            text += "".join(choice.text for choice in chunk.choices)
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    return text, tokens


def harm(server: ServerProcess, kind: signal.Signals) -> None:
    """Send a signal to the engine's process, and wait until it is gone."""
    engine = server.engine()
    engine.send_signal(kind)
    engine.wait(timeout=30)


def harm_again_and_again(server: ServerProcess, running: list[Future[tuple[str, int]]]) -> int:
    """Faults of all kinds at random moments, some of them while the engine loads; how many there were before all
    streams had ended."""
    moments = random.Random(7)
    for fault in range(FAULTS):
        time.sleep(moments.uniform(0.0, 2.5))
        if all(each.done() for each in running):
            return fault
        harm(server, KINDS[fault % len(KINDS)])
    return FAULTS


def test_ten_deaths_under_sixteen_streams_change_no_text(server: ServerProcess) -> None:
    with ThreadPoolExecutor(STREAMS) as pool:
        undisturbed = list(pool.map(lambda prompt: say(server, prompt), PROMPTS))
        running = [pool.submit(say, server, prompt) for prompt in PROMPTS]
        faults = harm_again_and_again(server, running)
        assert faults == FAULTS
        assert [each.result(timeout=120) for each in running] == undisturbed
    assert all(tokens == TOKENS for _, tokens in undisturbed)
    log = server.output()
    for cause in ("killed by SIGKILL", "killed by SIGSEGV", "the engine hangs"):
        assert cause in log


def test_health_is_ready_only_while_a_token_can_be_produced(server: ServerProcess) -> None:
    assert httpx.get(f"{server.url}/health").status_code == 200
    harm(server, signal.SIGKILL)
    states: list[str] = []
    end = time.monotonic() + 30
    while time.monotonic() < end and states[-2:] != ["restarting", "ok"]:
        state = httpx.get(f"{server.url}/health").json()["status"]
        if not states or states[-1] != state:
            states.append(state)
    assert states[-2:] == ["restarting", "ok"]
    assert say(server, PROMPTS[0])[1] == TOKENS


def test_the_engine_ends_with_its_server_however_that_ends(tiny_model: Path) -> None:
    with ServerProcess(str(tiny_model)) as server:
        engine = server.engine()
        server.process.kill()
        engine.wait(timeout=10)


def test_one_death_more_than_allowed_ends_the_server_with_status_one(tiny_model: Path) -> None:
    with ServerProcess(str(tiny_model), "--engine-restarts", "1") as server:
        harm(server, signal.SIGKILL)
        harm(server, signal.SIGKILL)
        assert server.wait(30) == 1
        assert server.output().splitlines()[-1].startswith("troupe: engine_room died 2 times in 60 s")
