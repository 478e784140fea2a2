"""Calls that are JSON from end to end: `{"name": …, "arguments": {…}}`, one or several, between markers or without."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.parsers.calls import Calls, is_object, read_string, read_value
from api.parsers.format import token_like
from api.parsers.lark import Speller, answer_rule, call_rules
from api.parsers.parts import Tool
from api.parsers.tape import Script, Tape

_ARGUMENTS = ("arguments", "parameters")
_ASIDES = ("id", "type")
"""Members that may stand before the arguments and say nothing of them."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """`opener`, an object or an array of objects, `closer`.

    A call opens where its arguments begin, and its arguments come as they are generated, if the name stands before
    them; otherwise both come when the name is known. Arguments that are JSON within a string, as some templates
    teach, are decoded in one piece; no arguments at all are `{}`. A call is closed where its arguments end: what
    of the envelope is missing then, or wrong, is not the call's fault, and what is wrong is content.
    """

    opener: str
    closer: str = ""
    lead: str = ""
    """A string that may follow the opener."""
    array: bool = False
    """Whether a grammar puts the calls into an array; read are both."""
    key: str = "arguments"
    """What a grammar calls the arguments."""
    pad: str = ""
    """White space that a grammar puts inside the markers."""
    between: str = ""
    """What may part calls that are not in an array."""
    sign: str = r"(?!)"
    """A regular expression found in the chat templates of this format."""
    while_thinking: tuple[str, ...] = ()

    @property
    def openers(self) -> tuple[str, ...]:
        """See Format."""
        return (self.opener,)

    @property
    def markers(self) -> frozenset[str]:
        """See Format."""
        return token_like((self.opener, self.closer))

    def signed(self, chat_template: str) -> bool:
        """See Format."""
        return re.search(self.sign, chat_template) is not None

    def read(self, tape: Tape, calls: Calls) -> Script[bool]:
        """See Format."""
        if not self.opener and calls.any_name:
            return False
        if not (yield from tape.accept(self.opener)):
            return False
        if self.lead:
            yield from tape.accept(self.lead)
        yield from tape.space()
        array = yield from tape.accept("[")
        yield from tape.space()
        if not (yield from self._read_one(tape, calls)):
            return False
        yield from self._read_more(tape, calls, "," if array else self.between)
        yield from tape.skip(filter(None, ["]" if array else "", self.closer]))
        return True

    def _read_more(self, tape: Tape, calls: Calls, separator: str) -> Script[None]:
        """The calls behind the first one; a missing separator is forgiven."""
        more = True
        while more:
            tape.mark()
            yield from tape.space()
            yield from tape.accept(separator)
            yield from tape.space()
            more = yield from self._read_one(tape, calls)
        tape.rewind()

    def _read_one(self, tape: Tape, calls: Calls) -> Script[bool]:
        """One object, as far as it can be read; False, and no part, if there is none."""
        if not (yield from tape.accept("{")):
            return False
        name, arguments = "", ""
        while not (name and arguments):
            key = yield from _read_key(tape)
            if key == "name":
                name = (yield from read_string(tape)) or ""
                if not calls.may_be(name):
                    return False
            elif key in _ARGUMENTS and name and (yield from tape.peek()) == "{":
                return (yield from self._stream(tape, calls, name))
            elif key in _ARGUMENTS:
                arguments = _object_text((yield from read_value(tape)))
                if not arguments:
                    return False
            elif key not in _ASIDES or (yield from read_value(tape)) is None:
                return False
            if not (name and arguments) and not (yield from _another(tape)):
                break
        if not name or not (arguments or (yield from tape.accept("}"))):
            return False
        tape.release()
        yield from calls.whole(name, arguments or "{}")
        if arguments:
            yield from _read_tail(tape)
        return True

    def _stream(self, tape: Tape, calls: Calls, name: str) -> Script[bool]:
        tape.release()
        yield calls.open(name)
        yield from calls.stream(tape, (self.opener, self.closer))
        yield from _read_tail(tape)
        return True

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, marker_ids: Mapping[str, int]) -> str:
        """See Format."""
        spell = Speller(marker_ids)
        head, tail = f'{{"name": "NAME", "{self.key}": ', "}"
        if self.array:
            answer = answer_rule(f"{self.opener}[", ", ", f"]{self.closer}", spell, parallel=parallel)
        elif self.between:
            answer = answer_rule(self.opener, f"{self.between} ", self.closer, spell, parallel=parallel)
        else:
            head, tail = f"{self.opener}{self.pad}{head}", f"{tail}{self.pad}{self.closer}"
            answer = answer_rule("", "\n", "", spell, parallel=parallel)
        return answer + call_rules(tools, head, tail, spell)


def _read_key(tape: Tape) -> Script[str | None]:
    """A member's key, its colon, and the space around them; None if that is not what comes next."""
    yield from tape.space()
    key = yield from read_string(tape)
    yield from tape.space()
    if key is None or not (yield from tape.accept(":")):
        return None
    yield from tape.space()
    return key


def _another(tape: Tape) -> Script[bool]:
    """Whether another member follows; its comma is read."""
    yield from tape.space()
    return (yield from tape.accept(","))


def _read_tail(tape: Tape) -> Script[None]:
    """What is left of an object behind a member; nothing of it is read if it is malformed."""
    tape.mark()
    while (yield from _another(tape)):
        if (yield from _read_key(tape)) is None or (yield from read_value(tape)) is None:
            break
    if (yield from tape.accept("}")):
        tape.release()
    else:
        tape.rewind()


def _object_text(value: str | None) -> str:
    """The object that `value` is, or that stands in it if it is a string; '' if it is neither."""
    if value is not None and value.startswith('"'):
        value = str(json.loads(value)).strip()
    return value if value is not None and is_object(value) else ""
