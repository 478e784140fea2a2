"""A family of models, as far as it has its own way of calling tools."""

import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from api.parsers.format import Format
from api.parsers.parts import Tool


def mint_call_id() -> str:
    """An id as OpenAI's: `call_` and 24 characters."""
    return f"call_{secrets.token_hex(12)}"


def mint_short_id() -> str:
    """Nine letters and digits: Mistral's templates refuse any other id."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


@dataclass(frozen=True, slots=True)
class ToolFamily:
    """The formats of a family, that of its model at hand first."""

    name: str
    variants: tuple[tuple[Format, ...], ...]
    """More than one if it is not known yet which of several families it is: the first call tells."""
    mint: Callable[[], str] = mint_call_id

    @property
    def markers(self) -> frozenset[str]:
        """Strings that may be special tokens of the vocabulary, and must reach the reader as text."""
        return frozenset(marker for variant in self.variants for format in variant for marker in format.markers)

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, marker_ids: Mapping[str, int]) -> str:
        """A Lark grammar for llguidance: its rule `answer` is one call of one of `tools`, or more if `parallel`.

        `marker_ids` has the ids of those markers that are special tokens.
        """
        return self.variants[0][0].grammar(tools, parallel=parallel, marker_ids=marker_ids)
