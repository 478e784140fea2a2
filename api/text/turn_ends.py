"""By which tokens a model's turns end: what its files name, and what its chat template writes behind an answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TurnEnds:
    """What the stop ids of a model are taken from, and what they are good for."""

    named: Mapping[str, frozenset[int]]
    """The end-of-sequence ids by who names them: `tokenizer`, `config.json`, `generation_config.json`; those that name
    none are missing."""
    names: Mapping[int, str]
    """Of all ids in here that have a token: an id that is missing has none."""
    has_template: bool
    written: Mapping[str, int] = field(default_factory=dict)
    """The id of the first token behind an answer, blanks aside: `inside` a conversation, and at its `end`. Missing
    where the template writes nothing there, or refuses."""
    refusal: str = ""
    """The template's own words, if it refuses a user's question, an answer and another question."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """All that are named: the codec stops at each of them."""
        return frozenset().union(*self.named.values())
