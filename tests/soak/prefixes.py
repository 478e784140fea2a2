"""Two thousand requests of random conversations per cache strategy, through evictions, engine deaths, restarts and
damaged files: every greedy token is that of a server without cache. `make soak`."""

import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.process import ServerProcess
from tests.soak.asking import Reference, Server, Verdict, judge
from tests.soak.talks import Talker, Wish
from tests.tiny import make_tiny_llama

STRATEGIES = ("paged", "memory-aware", "legacy")
REQUESTS, AT_ONCE, MOST_TOKENS = 2_000, 6, 16
FLAGS = ("--engine-restarts", "100", "--log-level", "warning")
REFERENCE = (*FLAGS, "--cache-memory-mb", "0")
HIT_TYPES = ("exact", "prefix", "supersequence", "lcp")
SHARE_OF_DAMAGED_FILES = 0.3
Lives = Sequence[tuple[str, ...]]
"""The flags that each life of a server is started with."""


@dataclass(slots=True)
class Figures:
    """What came of all requests to one strategy."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    left: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Both of those who stayed to the end."""
    damaged_files: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    """Look-ups by hit type, as /v1/status has them: misses too."""

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {verdict.value}" for verdict, count in sorted(self.verdicts.items()))
        hits = ", ".join(f"{count} {kind}" for kind, count in sorted(self.hits.items()))
        share = self.cached_tokens / max(1, self.prompt_tokens)
        files = f"{self.damaged_files} damaged files"
        return (
            f"{self.verdicts.total()} requests: {counts}; {self.left} left early; {hits}; {share:.0%} cached; {files}"
        )


class Life:
    """One server process, from its start to its end, and who talks to it. Its talkers go on in the next."""

    def __init__(
        self, name: str, process: ServerProcess, server: Server, reference: Reference, figures: Figures
    ) -> None:
        self._name = name
        self._process = process
        self._server = server
        self._reference = reference
        self._figures = figures
        self._counted: Counter[str] = Counter()

    def run(self, talkers: Sequence[Talker], each: int) -> None:
        """Every talker makes so many requests. After a quarter the first one clears the cache, half-way it kills the
        engine."""
        with ThreadPoolExecutor(len(talkers)) as pool:
            running = [pool.submit(self._talk, talker, each, talker is talkers[0]) for talker in talkers]
            for one in running:
                one.result()
        self._count_hits()

    def _talk(self, talker: Talker, each: int, destructive: bool) -> None:
        for number in range(each):
            if destructive and number == each // 4:
                self._server.clear_cache()
            if destructive and number == each // 2:
                self._count_hits()
                self._process.engine().kill()
            self._ask(talker, talker.wish())

    def _ask(self, talker: Talker, wish: Wish) -> None:
        said = self._server.ask(wish.prompt, wish.max_tokens, salt=wish.salt, leave_after=wish.leave_after)
        truth = self._reference.says(wish.prompt)
        stays = wish.leave_after is None
        verdict = judge(said, truth, wish.max_tokens if stays else len(said.tokens))
        self._figures.verdicts[verdict] += 1
        if verdict is Verdict.WRONG:
            self._figures.wrong.append(
                f"{self._name}: of {len(wish.prompt)} prompt ids {said.cached_tokens} were cached, salt {wish.salt!r}\n"
                f"  said     {said.tokens}\n  expected {truth.tokens[: len(said.tokens)]}\n  prompt   {wish.prompt}"
            )
        self._figures.left += not stays
        self._figures.prompt_tokens += len(wish.prompt) * stays
        self._figures.cached_tokens += said.cached_tokens
        talker.hear(wish, self._reference.ids(truth)[: wish.max_tokens])

    def _count_hits(self) -> None:
        """Add what is new in the server's own counts, which begin anew with an engine."""
        now = self._server.cache()["hits"]
        assert isinstance(now, dict)
        for kind, count in now.items():
            before = self._counted[kind]
            self._figures.hits[kind] += count - before if count >= before else count
            self._counted[kind] = count


def soak(
    reference: Reference, seed: int, each: int, lives: Sequence[Sequence[str]], folder: Path, model: Path
) -> Figures:
    """So many requests of each talker in each life of a server. Some of the files that the last life finds in `folder`
    are damaged."""
    figures = Figures()
    talkers = [Talker(f"{seed} {number}", MOST_TOKENS) for number in range(AT_ONCE)]
    for number, flags in enumerate(lives, start=1):
        if number == len(lives):
            figures.damaged_files = damage(folder, random.Random(seed))
        with ServerProcess(str(model), *FLAGS, *flags) as process, Server(process.url) as server:
            Life(f"life {number}", process, server, reference, figures).run(talkers, each)
    return figures


def damage(folder: Path, chance: random.Random) -> int:
    """Flip a byte somewhere in some of the files; how many there were."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.stat().st_size]
    hurt = [file for file in files if chance.random() < SHARE_OF_DAMAGED_FILES]
    for file in hurt:
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 0xFF
        file.write_bytes(content)
    return len(hurt)


def lives_of(strategy: str, folder: Path) -> Lives:
    """One with little memory, and three on one folder, which is small as well. (What `legacy` may keep is a number of
    prefixes.)"""
    small = ("--cache-strategy", strategy, *(() if strategy == "legacy" else ("--cache-memory-mb", "2")))
    on_disk = (*small, "--cache-dir", str(folder), "--cache-dir-mb", "4")
    return [small, on_disk, on_disk, on_disk]


def main() -> int:
    seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(10**6))
    print(f"SOAK_SEED={seed}", flush=True)
    good = True
    with tempfile.TemporaryDirectory() as place:
        model = make_tiny_llama(Path(place) / "tiny")
        with ServerProcess(str(model), *REFERENCE) as process, Server(process.url) as server:
            reference = Reference(server, MOST_TOKENS)
            for strategy in STRATEGIES:
                good &= _proves(strategy, reference, seed, Path(place) / strategy, model)
    return 0 if good else 1


def _proves(strategy: str, reference: Reference, seed: int, folder: Path, model: Path) -> bool:
    """Whether nothing was wrong, and the cache was really used, in every way."""
    folder.mkdir()
    lives = lives_of(strategy, folder)
    started_at = time.monotonic()
    figures = soak(reference, seed, -(-REQUESTS // len(lives) // AT_ONCE), lives, folder, model)
    print(f"{strategy}: {figures}; {(time.monotonic() - started_at) / 60:.1f} minutes", flush=True)
    for one in figures.wrong:
        print(f"WRONG: {one}")
    unused = [kind for kind in HIT_TYPES if not figures.hits[kind]]
    if unused:
        print(f"NEVER: {', '.join(unused)}")
    return not figures.wrong and not unused


if __name__ == "__main__":
    sys.exit(main())
