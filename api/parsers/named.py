"""Calls that name the tool outside of their JSON: `marker name marker {…} marker`."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from api.parsers.calls import Calls
from api.parsers.format import token_like
from api.parsers.lark import Speller, answer_rule, call_rules
from api.parsers.parts import Tool
from api.parsers.tape import Script, Tape

NAME = re.compile(r"[\w.:/-]*")
_ID = re.compile(r"\w*")


def label_is_name(label: str) -> tuple[str, str]:
    """The name and the id in a label that is a name alone."""
    return label, ""


@dataclass(frozen=True, slots=True)
class Named:
    """`opener`, `lead`, a label, `middle`, the arguments as a JSON object, and what there is of `closers`.

    White space may stand between all of them. The call opens with its arguments, which come as they are generated.
    """

    opener: str
    closers: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    """What, one of it, may stand before the opener, around several calls; what ends it is the last of the closers."""
    lead: str = ""
    id_mark: str = ""
    """What may stand behind the label, with an id behind it."""
    middle: str = ""
    to_all: str = ""
    """What stands behind the opener where no call follows, but text for the user."""
    label: Callable[[str], tuple[str, str]] = label_is_name
    """Takes a label apart into a name and an id."""
    written: tuple[str, str] = ("", "")
    """What a grammar puts before and behind the arguments; NAME is the tool's name, INDEX a number."""
    sign: str = r"(?!)"
    """A regular expression found in the chat templates of this format."""
    while_thinking: tuple[str, ...] = ()

    @property
    def openers(self) -> tuple[str, ...]:
        """See Format."""
        return (*self.sections, self.opener)

    @property
    def markers(self) -> frozenset[str]:
        """See Format."""
        lead = self.lead[self.lead.find("<") :]
        return token_like((*self.sections, self.opener, lead, self.id_mark, self.middle, *self.closers))

    def signed(self, chat_template: str) -> bool:
        """See Format."""
        return re.search(self.sign, chat_template) is not None

    def read(self, tape: Tape, calls: Calls) -> Script[bool]:
        """See Format."""
        for section in self.sections:
            if (yield from tape.accept(section)):
                yield from tape.space()
                break
        if not ((yield from tape.accept(self.opener)) and (yield from tape.accept(self.lead))):
            return False
        if self.to_all and (yield from tape.accept(self.to_all)):
            return True
        yield from tape.space()
        name, call_id = self.label((yield from tape.word(NAME)))
        if not calls.may_be(name):
            return False
        if self.id_mark and (yield from tape.accept(self.id_mark)):
            call_id = yield from tape.word(_ID)
        yield from tape.space()
        if not (yield from tape.accept(self.middle)):
            return False
        yield from tape.space()
        if (yield from tape.peek()) != "{":
            return False
        tape.release()
        yield calls.open(name, call_id)
        yield from calls.stream(tape, (self.opener, *token_like(self.closers)))
        yield from tape.skip(self.closers)
        return True

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, marker_ids: Mapping[str, int]) -> str:
        """See Format."""
        spell = Speller(marker_ids)
        section, end = (self.sections[-1], self.closers[-1]) if self.sections and self.closers else ("", "")
        before, after = self.written
        return answer_rule(section, "", end, spell, parallel=parallel) + call_rules(tools, before, after, spell)
