"""What one way of writing calls has to tell of itself."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from api.parsers.calls import Calls
from api.parsers.parts import Tool
from api.parsers.tape import Script, Tape


class Format(Protocol):
    """One way of writing calls. A family has one or more; those with the same beginning are tried in their order."""

    @property
    def openers(self) -> tuple[str, ...]:
        """The strings with which a call may begin; '' if one may begin at the beginning of a reply, with no marker."""
        ...

    @property
    def markers(self) -> frozenset[str]:
        """All strings of the format that may be special tokens of a vocabulary."""
        ...

    @property
    def while_thinking(self) -> tuple[str, ...]:
        """The openers behind which a call ends the thinking that it stands in; other calls there are thinking."""
        ...

    def signed(self, chat_template: str) -> bool:
        """Whether a chat template is written for this format."""
        ...

    def read(self, tape: Tape, calls: Calls) -> Script[bool]:
        """Read the calls that come next; False, and no part, if there are none.

        The tape is marked; the mark is to be released with the first part.
        """
        ...

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, marker_ids: Mapping[str, int]) -> str:
        """A Lark grammar for llguidance: its rule `answer` is one call of one of `tools`, or more if `parallel`."""
        ...


def token_like(strings: Iterable[str]) -> frozenset[str]:
    """Those of `strings` that have the look of a special token: in angle or square brackets."""
    return frozenset(s for s in strings if len(s) > 2 and (s[0] + s[-1]) in ("<>", "[]"))
