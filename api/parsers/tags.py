"""The facts of formats whose arguments are tags around plain text, and not JSON."""

import re
from dataclasses import dataclass

from api.parsers.format import token_like
from api.parsers.values import Untyped

STRING = frozenset(("string",))


@dataclass(frozen=True, slots=True)
class Tags:
    """`opener` name `name_end`, then `key` … `key_ends` `value` … `value_end` for each argument, then `closer`.

    White space may stand between the arguments. Arguments become JSON on the way: strings as they are generated,
    others when they are complete, as the tool's schema has them. A value ends with the first `value_end`.
    """

    opener: str
    name_end: str
    key: str
    key_ends: tuple[tuple[str, frozenset[str]], ...]
    """What ends a key, and the types that the value is of; none: the schema says it."""
    value_end: str
    closer: str
    section: str = ""
    """What may stand before the opener, and what ends it, behind the closer."""
    section_end: str = ""
    value: str = ""
    lines: bool = False
    """A value has lines of its own: the line breaks at both its ends belong to the tags."""
    pad: str = "\n"
    """White space that a grammar puts between the tags."""
    section_each: bool = False
    """A grammar puts every call into a section of its own."""
    tokens: tuple[str, ...] = ()
    """Other strings in the tags that may be special tokens."""
    untyped: Untyped = Untyped.JSON
    sign: str = r"(?!)"
    """A regular expression found in the chat templates of this format."""
    while_thinking: tuple[str, ...] = ()

    @property
    def openers(self) -> tuple[str, ...]:
        """See Format."""
        return tuple(filter(None, (self.section, self.opener)))

    @property
    def markers(self) -> frozenset[str]:
        """See Format."""
        ends = (self.value_end, self.closer, self.section_end, *(end for end, _ in self.key_ends))
        return frozenset(self.tokens) | token_like((self.section, self.opener, self.key, self.value, *ends))

    def signed(self, chat_template: str) -> bool:
        """See Format."""
        return re.search(self.sign, chat_template) is not None
