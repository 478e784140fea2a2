"""Whatever a prefix cache serves, greedy tokens are those of a server without one: the short form of `make soak`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.process import ServerProcess
from tests.soak.asking import Reference, Said, Server, Verdict, judge
from tests.soak.prefixes import AT_ONCE, FLAGS, MOST_TOKENS, REFERENCE, STRATEGIES, soak
from tests.soak.talks import ASKING, SYSTEMS

REQUESTS, SEED = 60, 5


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> Iterator[Reference]:
    """A server without cache."""
    with ServerProcess(str(tiny_model), *REFERENCE) as process, Server(process.url) as server:
        yield Reference(server, MOST_TOKENS)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_random_conversations_read_as_without_a_cache(
    strategy: str, reference: Reference, tiny_model: Path, tmp_path: Path
) -> None:
    """Through an engine's death and a clearing; with one strategy also through a restart on damaged files."""
    flags = ("--cache-strategy", strategy)
    lives = [(*flags, "--cache-dir", str(tmp_path))] * 2 if strategy == STRATEGIES[0] else [flags]
    figures = soak(reference, SEED, REQUESTS // AT_ONCE // len(lives), lives, tmp_path, tiny_model)
    assert not figures.wrong, "\n".join(figures.wrong)
    assert figures.verdicts.total() == REQUESTS
    assert figures.cached_tokens > 0
    assert sum(figures.hits.values()) > figures.hits["miss"]


def test_salts_share_nothing_and_each_has_its_own(tiny_model: Path) -> None:
    prompt = SYSTEMS[-1] + ASKING
    with ServerProcess(str(tiny_model), *FLAGS) as process, Server(process.url) as server:
        cached = [server.ask(prompt, 2, salt=salt).cached_tokens for salt in ("", "one", "two", "one", "")]
    assert cached[:3] == [0, 0, 0]
    assert cached[3:] == [len(prompt) - 1] * 2


def test_a_wrong_token_is_told_from_a_tie() -> None:
    truth = Said(("a", "b", "c"), (1.0, 1e-6, 1.0))
    assert judge(truth, truth, 3) is Verdict.SAME
    assert judge(Said(("a",), (1.0,)), truth, 1) is Verdict.SAME
    assert judge(Said(("a",), (1.0,)), truth, 2) is Verdict.WRONG
    assert judge(Said(("a", "x", "x"), (1.0,) * 3), truth, 3) is Verdict.TIE
    assert judge(Said(("a", "b", "x"), (1.0,) * 3), truth, 3) is Verdict.WRONG
