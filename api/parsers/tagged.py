"""Calls whose arguments are tags around plain text, and not JSON."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.parsers.calls import Calls, escaped, read_value
from api.parsers.format import token_like
from api.parsers.lark import Speller
from api.parsers.named import NAME
from api.parsers.parts import Tool
from api.parsers.tagged_grammar import tagged_grammar
from api.parsers.tags import STRING, Tags
from api.parsers.tape import Script, Stops, Tape, stops_for
from api.parsers.values import to_json, types_of

_KEY = re.compile(r'[^<>"\n]*')


@dataclass(frozen=True, slots=True)
class Tagged(Tags):
    """Reads such calls. Arguments become JSON on the way: strings as they are generated, others when complete.

    A call opens where its first argument begins, or with its end; a value ends with the first `value_end`.
    """

    def read(self, tape: Tape, calls: Calls) -> Script[bool]:
        """See Format."""
        if self.section and (yield from tape.accept(self.section)):
            yield from tape.space()
        if not (yield from tape.accept(self.opener)):
            return False
        name = yield from tape.word(NAME)
        if not calls.may_be(name) or not (yield from tape.accept(self.name_end)):
            return False
        yield from tape.space()
        more = yield from tape.accept(self.key)
        if not more and not (yield from tape.accept(self.closer)):
            return False
        tape.release()
        yield calls.open(name)
        if not more:
            yield calls.arguments("{}")
            yield calls.close()
        else:
            yield from self._read_arguments(tape, calls, name)
        yield from tape.skip(filter(None, (self.section_end,)))
        return True

    def _read_arguments(self, tape: Tape, calls: Calls, name: str) -> Script[None]:
        """All arguments, from behind the first `key` on, and the end of the call."""
        before = "{"
        while (yield from self._read_argument(tape, calls, before, name)):
            yield from tape.space()
            if (yield from tape.accept(self.closer)):
                yield calls.arguments("}")
                yield calls.close()
                return
            before = ", "
            if not (yield from tape.accept(self.key)):
                yield from self._read_rest(tape, calls, before)
                return

    def _read_argument(self, tape: Tape, calls: Calls, before: str, name: str) -> Script[bool]:
        """One argument, from behind its `key` on; False if it is malformed or cut off, and everything was read."""
        key, types = yield from self._read_key(tape)
        if types is None:
            yield from self._read_rest(tape, calls, before + self.key)
            return False
        tape.release()
        parameters = calls.parameters(name)
        properties = parameters.get("properties")
        if not types and isinstance(properties, Mapping):
            types = types_of(properties.get(key), parameters)
        yield calls.arguments(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
        if self.lines:
            yield from tape.accept("\n")
        if types == STRING:
            return (yield from self._stream_string(tape, calls))
        return (yield from self._read_value(tape, calls, types))

    def _read_key(self, tape: Tape) -> Script[tuple[str, frozenset[str] | None]]:
        """A key and its types, up to where the value begins; None for types, and nothing read, if it is malformed."""
        tape.mark()
        key = yield from tape.word(_KEY)
        for end, types in self.key_ends:
            if (yield from tape.accept(end)):
                if self.value:
                    yield from tape.space()
                if (yield from tape.accept(self.value)):
                    return key, types
                break
        tape.rewind()
        return "", None

    def _stream_string(self, tape: Tape, calls: Calls) -> Script[bool]:
        yield calls.arguments('"')
        while True:
            text, end = tape.upto(self._value_ends)
            if text:
                yield calls.arguments(escaped(text))
            if end:
                tape.take(len(end))
                yield calls.arguments('"')
                return True
            if tape.over:
                return False
            yield None

    def _read_value(self, tape: Tape, calls: Calls, types: frozenset[str]) -> Script[bool]:
        """A value that is no string: a tag within a string within it does not end it."""
        tape.mark()
        yield from tape.space()
        nested = (yield from read_value(tape)) if (yield from tape.peek()) in ("{", "[") else None
        yield from tape.space()
        if nested is not None and (yield from tape.accept(self.value_end)):
            tape.release()
            yield calls.arguments(to_json(nested, types, self.untyped))
            return True
        tape.rewind()
        return (yield from self._read_text(tape, calls, types))

    def _read_text(self, tape: Tape, calls: Calls, types: frozenset[str]) -> Script[bool]:
        pieces: list[str] = []
        tape.mark()
        while True:
            text, end = tape.upto(self._value_ends)
            pieces.append(text)
            if end or tape.over:
                break
            yield None
        tape.release()
        tape.take(len(end))
        value = "".join(pieces)
        # A value that was cut off must not look like a whole one.
        yield calls.arguments(to_json(value, types, self.untyped) if end else f'"{escaped(value)}')
        return bool(end)

    def _read_rest(self, tape: Tape, calls: Calls, before: str) -> Script[None]:
        """What is wrong, up to the end of the call, which stays open."""
        yield from calls.rest(tape, (self.opener, *token_like((self.closer, self.section_end))), before)
        yield from tape.skip((self.closer,))

    @property
    def _value_ends(self) -> Stops:
        return stops_for(frozenset((self.value_end, "\n" + self.value_end) if self.lines else (self.value_end,)))

    def grammar(self, tools: Sequence[Tool], *, parallel: bool, marker_ids: Mapping[str, int]) -> str:
        """See Format."""
        return tagged_grammar(self, tools, Speller(marker_ids), parallel=parallel)
