"""What becomes of every text under both policies, and how that is judged."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from api.text.codec import HfCodec
from api.text.loops import RepetitionWatch
from runtime.types import RepetitionPolicy
from tests.repetition import fine, loops, wanted
from tests.repetition.text import Kind, Text

HELD_OUT = 3
"""Every third text of a kind is kept apart: no limit was chosen on it."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a text was ended."""

    tokens: int
    trigger: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a text."""

    text: Text
    held_out: bool
    tokens: int
    stops: dict[RepetitionPolicy, Stop | None]

    def good(self, policy: RepetitionPolicy) -> bool | None:
        """Whether that is right; None where either is."""
        if self.text.kind is Kind.WANTED and policy is RepetitionPolicy.STRICT:
            return None
        return (self.stops[policy] is not None) == (self.text.kind is Kind.LOOP)


def all_texts() -> Iterator[tuple[Text, bool]]:
    """Every text, and whether it is kept apart."""
    everything = [*fine.texts(), *wanted.texts(), *loops.texts()]
    for kind in Kind:
        for index, text in enumerate(sorted((t for t in everything if t.kind is kind), key=lambda text: text.apart)):
            yield text, text.apart or index % HELD_OUT == HELD_OUT - 1


def stop(ids: Iterable[int], prompt: str, codec: HfCodec, policy: RepetitionPolicy) -> Stop | None:
    """Where the watch ends these tokens, as they come out one by one."""
    watch, detokeniser = RepetitionWatch(policy, lambda: prompt), codec.detokeniser()
    for count, token_id in enumerate(ids, 1):
        if trigger := watch.take(token_id, detokeniser.feed(token_id)):
            return Stop(count, trigger)
    return None


def outcome(text: Text, held_out: bool, ids: list[int], codec: HfCodec) -> Outcome:
    """What becomes of one text, in tokens of one tokeniser."""
    return Outcome(
        text, held_out, len(ids), {policy: stop(ids, text.prompt, codec, policy) for policy in RepetitionPolicy}
    )
