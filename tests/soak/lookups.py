"""What a look-up in the prefix cache costs: a long prompt with a divergent tail, and a thousand kept sequences. `make
soak`."""

import random
import statistics
import sys
import time
from array import array
from collections.abc import Sequence

from actors.policies.pieces import block_stops, cut, root_of
from actors.policies.tier import Tier
from tests.soak.asking import Ids

ROUNDS, VOCABULARY = 51, 50_000
LONG_TOKENS, SHORT_TOKENS, ENTRIES, SHARED_TOKENS = 65_536, 2_048, 1_000, 1_024
LONG_LIMIT_S, SHORT_LIMIT_S = 0.020, 0.001
ROOT = root_of("")


def again(ids: Ids) -> Ids:
    """The same numbers as other objects, as another request has them: they are compared by value."""
    return tuple(array("I", ids))


def ids(chance: random.Random, tokens: int) -> Ids:
    return tuple(chance.choices(range(VOCABULARY), k=tokens))


def tier_of(kept: Sequence[Ids]) -> Tier:
    """A tier that holds these sequences in blocks, as the paged strategy does."""
    tier = Tier(trimmable=True)
    for sequence in kept:
        pieces = cut(ROOT, sequence, block_stops(len(sequence)))
        tier.add(ROOT, pieces, dict.fromkeys((piece.handle for piece in pieces), 1))
    return tier


def median_s(tier: Tier, prompts: Sequence[Ids], shared: int) -> float:
    """Seconds that one look-up takes; every prompt shares so many leading ids with what is kept."""
    times = []
    for prompt in prompts:
        started_at = time.perf_counter()
        found = tier.find(ROOT, prompt)
        times.append(time.perf_counter() - started_at)
        assert found is not None
        assert found.tokens == shared
    return statistics.median(times)


def long_prompt_s() -> float:
    """Prompts of 64k ids that leave the kept sequence half-way."""
    chance = random.Random(1)
    kept = ids(chance, LONG_TOKENS)
    begun = again(kept[: LONG_TOKENS // 2])
    other = VOCABULARY  # an id that nothing kept has, so that they part here and nowhere else
    tails = [(other, *ids(chance, LONG_TOKENS // 2 - 1)) for _ in range(ROUNDS)]
    return median_s(tier_of([kept]), [begun + tail for tail in tails], len(begun))


def many_entries_s() -> float:
    """Prompts of 2k ids, each sharing half of one of a thousand sequences, which all begin the same."""
    chance = random.Random(2)
    system = ids(chance, SHARED_TOKENS // 2)
    kept = [system + ids(chance, SHORT_TOKENS - len(system)) for _ in range(ENTRIES)]
    begun = [again(sequence[:SHARED_TOKENS]) for sequence in chance.sample(kept, ROUNDS)]
    tail = (VOCABULARY,) * (SHORT_TOKENS - SHARED_TOKENS)
    return median_s(tier_of(kept), [beginning + tail for beginning in begun], SHARED_TOKENS)


def within(what: str, taken_s: float, limit_s: float) -> bool:
    print(f"look-up of {what}: {taken_s * 1e3:.3f} ms (at most {limit_s * 1e3:g})", flush=True)
    return taken_s <= limit_s


def main() -> int:
    good = within(f"{LONG_TOKENS} tokens", long_prompt_s(), LONG_LIMIT_S)
    good &= within(f"{SHORT_TOKENS} tokens among {ENTRIES} entries", many_entries_s(), SHORT_LIMIT_S)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
