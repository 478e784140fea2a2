"""Calls written as Python writes them: `[name(key=value, …), …]`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.parsers.calls import Calls
from api.parsers.format import token_like
from api.parsers.lark import Speller, answer_rule, json_value, one_of
from api.parsers.named import NAME
from api.parsers.parts import Tool
from api.parsers.python_literal import LiteralScanner, stream_string, to_json
from api.parsers.tape import Script, Tape

_KEY = re.compile(r"\w*")
_ESCAPES = 'nrtbf\\"'
"""Of JSON's escapes those that mean the same in Python."""


@dataclass(frozen=True, slots=True)
class Pythonic:
    """`opener`, a list of calls with keyword arguments, `closer`.

    Arguments become JSON on the way: strings as they are generated, others when they are complete.
    """

    opener: str = ""
    closer: str = ""
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
        yield from tape.space()
        if not ((yield from tape.accept("[")) and (yield from self._read_call(tape, calls))):
            return False
        while True:
            tape.mark()
            yield from tape.space()
            if not ((yield from tape.accept(",")) and (yield from self._read_call(tape, calls))):
                break
        tape.rewind()
        yield from tape.skip(filter(None, ("]", self.closer)))
        return True

    def _read_call(self, tape: Tape, calls: Calls) -> Script[bool]:
        yield from tape.space()
        name = yield from tape.word(NAME)
        if not calls.may_be(name) or not (yield from tape.accept("(")):
            return False
        tape.release()
        yield calls.open(name)
        yield from tape.space()
        before = "{"
        while not (yield from tape.accept(")")):
            if not (yield from self._read_argument(tape, calls, before)):
                return True
            before = ", "
            yield from tape.space()
            yield from tape.accept(",")
            yield from tape.space()
        yield calls.arguments("{}" if before == "{" else "}")
        yield calls.close()
        return True

    def _read_argument(self, tape: Tape, calls: Calls, before: str) -> Script[bool]:
        """One argument; False if it is malformed or cut off, and everything was read."""
        tape.mark()
        key = yield from tape.word(_KEY)
        yield from tape.space()
        if not key or not (yield from tape.accept("=")):
            tape.rewind()
            # So that nothing that follows can make it look like a whole object.
            yield from calls.rest(tape, self._ends, "(" if before == "{" else before)
            return False
        tape.release()
        yield calls.arguments(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
        yield from tape.space()
        quote = yield from tape.peek()
        if quote in ("'", '"'):
            tape.take(1)
            complete = yield from stream_string(tape, calls, quote)
        else:
            complete = yield from self._read_value(tape, calls)
        if not complete:
            yield from calls.rest(tape, self._ends)
        return complete

    @property
    def _ends(self) -> tuple[str, ...]:
        return (self.opener, self.closer)

    def _read_value(self, tape: Tape, calls: Calls) -> Script[bool]:
        scanner = LiteralScanner()
        pieces: list[str] = []
        tape.mark()
        while not (scanner.done or scanner.failed or tape.over):
            text = tape.scan(scanner)
            pieces.append(text)
            if not text and not scanner.done:
                yield None
        value = to_json("".join(pieces)) if scanner.done else None
        if value is None:
            tape.rewind()
            return False
        tape.release()
        yield calls.arguments(value)
        return True

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, marker_ids: Mapping[str, int]) -> str:
        """See Format: arguments in the order of the schema's properties."""
        spell = Speller(marker_ids)
        answer = answer_rule(f"{self.opener}[", ", ", f"]{self.closer}", spell, parallel=parallel)
        rules = [answer, one_of("call", [f"call_{number}" for number in range(len(tools))])]
        rules.append(f'any_argument: /[A-Za-z_][A-Za-z0-9_]*/ "=" {json_value({}, escapes=_ESCAPES)}\n')
        return "".join([*rules, *(_call_rule(number, tool, spell) for number, tool in enumerate(tools))])


def _call_rule(number: int, tool: Tool, spell: Speller) -> str:
    properties = tool.parameters.get("properties")
    if not isinstance(properties, Mapping):
        return f"call_{number}: {spell(tool.name)} " + '"(" (any_argument (", " any_argument)*)? ")"\n'
    required = tool.parameters.get("required")
    needed = [key for key in properties if isinstance(required, Sequence) and key in required]
    optional = [key for key in properties if key not in needed]
    names = {key: f"argument_{number}_{place}" for place, key in enumerate(properties)}
    starts = [(needed, optional)] if needed else [([key], optional[place + 1 :]) for place, key in enumerate(optional)]
    if not properties:
        return f"call_{number}: {spell(tool.name + '()')}\n"
    bodies = [_sequence([names[key] for key in first], [names[key] for key in then]) for first, then in starts]
    arguments = f"({' | '.join(bodies)})" + ("" if needed else "?")
    rules = [f'call_{number}: {spell(tool.name)} "(" {arguments} ")"\n']
    for key, schema in properties.items():
        definitions = {word: tool.parameters[word] for word in ("$defs", "definitions") if word in tool.parameters}
        schema = dict(schema) if isinstance(schema, Mapping) else {}
        value = json_value(definitions | schema, escapes=_ESCAPES)
        rules.append(f"{names[key]}: {spell(key + '=')} {value}\n")
    return "".join(rules)


def _sequence(first: Sequence[str], then: Sequence[str]) -> str:
    return " ".join([' ", " '.join(first), *(f'(", " {name})?' for name in then)])
