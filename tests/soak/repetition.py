"""What both repetition policies make of every text in tests/repetition, in tokens of the default model, and what it
costs. `make soak`."""

import random
import sys
import time
from collections.abc import Sequence

from tokenizers import Tokenizer

from api.text.codec import HfCodec
from api.text.loops import RepetitionWatch
from runtime.models.resolve import resolve
from runtime.types import RepetitionPolicy
from tests.repetition.fine import WORDS
from tests.repetition.tables import Outcome, all_texts, outcome
from tests.repetition.text import Kind

LIMIT_US = 10.0
"""Microseconds that a token may cost: the event loop does this for every stream."""

MOST_WRONG = {Kind.FINE: 0.0, Kind.WANTED: 0.0, Kind.LOOP: 0.25}
"""Of the texts of a kind, the share that may be judged wrongly: loops that were written down before there was enough
of them are among them."""


def row(each: Outcome) -> str:
    """Name, tokens, kind, and for either policy where it stopped; `!` where that is wrong."""
    shown = (
        f"{f'{stop.tokens} {stop.trigger}' if stop else '-':<20}{'!' if each.good(policy) is False else ' '}"
        for policy, stop in each.stops.items()
    )
    apart = "apart" if each.held_out else ""
    return f"{each.text.name[:44]:<45}{each.tokens:>6} {each.text.kind:<7}{apart:<6}{' '.join(shown)}".rstrip()


def counts(outcomes: Sequence[Outcome], policy: RepetitionPolicy) -> str:
    """By kind, how many were ended."""
    kinds = {kind: [each for each in outcomes if each.text.kind is kind] for kind in Kind}
    return ", ".join(
        f"{kind} {sum(each.stops[policy] is not None for each in those)} of {len(those)} ended"
        for kind, those in kinds.items()
    )


def right(outcomes: Sequence[Outcome], policy: RepetitionPolicy, kind: Kind) -> bool:
    those = [each for each in outcomes if each.text.kind is kind]
    return sum(each.good(policy) is False for each in those) <= MOST_WRONG[kind] * len(those)


def microseconds(pieces: Sequence[str]) -> float:
    """What each of these tokens costs of a core; ids are numbers of the pieces."""
    ids = {piece: number for number, piece in enumerate(sorted(set(pieces)))}
    told = [(ids[piece], piece) for piece in pieces]
    watch = RepetitionWatch(RepetitionPolicy.SAFE, str)
    started_at = time.thread_time()
    for token_id, piece in told:
        watch.take(token_id, piece)
    return (time.thread_time() - started_at) / len(told) * 1e6


def speeds() -> dict[str, float]:
    """By what is said."""
    chance = random.Random(1)
    sentence = [*(f" {word}" for word in WORDS[:11]), "."]
    row = ["|", " open", " |", " ", "0", " |", "\n"]
    said = {
        "words at random": [chance.choice((f" {chance.choice(WORDS)}", ",", ".", "\n")) for _ in range(8000)],
        "equal rows, which safe lets go on for long": row * 1200,
        "rows of figures": ["0", ",", " "] * 2700,
        "sentences that come back": [
            piece for _ in range(700) for piece in (*sentence, f" {chance.choice(WORDS)}", ".", "\n")
        ],
    }
    return {
        f"{tokens} tokens, {name}": microseconds(pieces[:tokens])
        for name, pieces in said.items()
        for tokens in (1000, 8000)
    }


def main() -> int:
    path = resolve(None, say=print).path
    codec, tokenizer = HfCodec(path), Tokenizer.from_file(str(path / "tokenizer.json"))
    outcomes = [
        outcome(text, apart, tokenizer.encode(text.text, add_special_tokens=False).ids, codec)
        for text, apart in all_texts()
    ]
    print("\n".join(map(row, outcomes)))
    for apart in (False, True):
        for policy in RepetitionPolicy:
            those = [each for each in outcomes if each.held_out is apart]
            print(f"{policy}, {'kept apart' if apart else 'chosen on'}: {counts(those, policy)}")
    costs = speeds()
    for name, cost in costs.items():
        print(f"{name}: {cost:.2f} us per token (at most {LIMIT_US:g})")
    good = all(right(outcomes, policy, kind) for policy in RepetitionPolicy for kind in Kind)
    return 0 if good and max(costs.values()) <= LIMIT_US else 1


if __name__ == "__main__":
    sys.exit(main())
