"""Batch invariance under hardship: what requests are answered alone, they are answered to the bit in a crowd, beside
grammars and clients that leave, after preemptions, and after the engine was killed."""

import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import httpx

from tests.e2e.process import ServerProcess
from tests.tiny import CORPUS, make_tiny_llama

WORDS = " ".join(CORPUS).split()
CROWD, KILLS, TOKENS_BETWEEN_KILLS, PATIENCE_S = 48, 2, 2400, 600.0
FLAGS = ("--batch-invariant", "--runtime-mode", "batched", "--max-concurrency", "64", "--timeout", "600")
NARROW = ("--kv-memory-mb", "4", "--cache-memory-mb", "1")
"""For this model: so little that requests are preempted."""
KINDS: tuple[dict[str, object], ...] = (
    {"temperature": 0},
    {"temperature": 0.9, "top_p": 0.9},
    {"temperature": 1.1, "top_k": 40, "min_p": 0.02, "repetition_penalty": 1.2, "presence_penalty": 0.5},
    {"temperature": 0.7, "n": 2},
    {"temperature": 0, "logit_bias": {"70": 3}, "frequency_penalty": 0.3},
    {"temperature": 0.8, "response_format": {"type": "json_object"}},
)
Body = dict[str, object]
Answers = list[list[object]]


def bodies() -> list[Body]:
    """Chats of all kinds and of many lengths."""
    draw = random.Random(7)
    return [_body(number, draw) for number in range(CROWD)]


def _body(number: int, draw: random.Random) -> Body:
    text = " ".join(draw.choice(WORDS) for _ in range(draw.choice((1, 3, 10, 20, 40, 90, 150))))
    return {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": draw.choice((5, 60, 150, 300)),
        "seed": number,
        "logprobs": True,
        "top_logprobs": 2,
        **KINDS[number % len(KINDS)],
    }


def ask(client: httpx.Client, body: Body) -> list[object]:
    """The log-probabilities of every choice, and how it ended."""
    reply = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    return [(choice["logprobs"], choice["finish_reason"]) for choice in reply["choices"]]


@contextmanager
def clients_that_leave(client: httpx.Client) -> Iterator[None]:
    over = threading.Event()

    def come_and_go() -> None:
        body = {**_body(0, random.Random(1)), "stream": True, "max_tokens": 200}
        while not over.is_set():
            with client.stream("POST", "/v1/chat/completions", json=body) as reply:
                next(reply.iter_lines(), None)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def produce(client: httpx.Client, tokens: int) -> None:
    """Wait until so many more have been produced, some 50 by each: a request that is on stage in two deaths, and gets
    no further in between than the 32 tokens that a whole reply comes in lots of, is taken for the cause."""
    end = time.monotonic() + PATIENCE_S
    wanted: int | None = None
    while time.monotonic() < end:
        decode = client.get("/v1/actors").json()["decode"]
        if decode and wanted is None:
            wanted = decode["produced_tokens"] + tokens
        if decode and wanted is not None and decode["produced_tokens"] >= wanted:
            return
        time.sleep(0.05)
    raise AssertionError("nothing gets on")


def answers(server: ServerProcess, asked: Sequence[Body], width: int, kills: int = 0) -> Answers:
    """Of all, so many at a time, while the engine is killed again and again."""
    limits = httpx.Limits(max_connections=2 * CROWD)
    with (
        httpx.Client(base_url=server.url, timeout=PATIENCE_S, limits=limits) as client,
        clients_that_leave(client) if width > 1 else nullcontext(),
        ThreadPoolExecutor(width) as pool,
    ):
        asking = [pool.submit(ask, client, body) for body in asked]
        for _ in range(kills):
            produce(client, TOKENS_BETWEEN_KILLS)
            server.engine().send_signal(signal.SIGKILL)
        return [each.result() for each in asking]


def survives(folder: Path) -> bool:
    """Whether all was answered as alone, with at least one preemption among the hardships. The model is made in
    `folder`."""
    asked, model = bodies(), make_tiny_llama(folder)
    with ServerProcess(str(model), *FLAGS) as server:
        alone = answers(server, asked, 1)
        crowd = answers(server, asked, CROWD)
        killed = answers(server, [{**body, "cache_salt": "new"} for body in asked], CROWD, KILLS)
    with ServerProcess(str(model), *FLAGS, *NARROW) as server:
        narrow = answers(server, asked, CROWD, 1)
        preemptions = httpx.get(f"{server.url}/v1/actors").json()["scheduler"]["preemptions"]
    runs = {"in a crowd": crowd, f"with {KILLS} deaths of the engine": killed, "with one, and little room": narrow}
    for name, told in runs.items():
        same = sum(one == other for one, other in zip(told, alone, strict=True))
        print(f"  {name}: {same} of {len(alone)} answers the same to the bit", flush=True)
    print(f"  {preemptions} preemptions", flush=True)
    return preemptions > 0 and all(told == alone for told in runs.values())
