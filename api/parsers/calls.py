"""The calls of one reply: which may be made, how they are numbered, and how their arguments are told."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from api.parsers.json_scanner import JsonScanner
from api.parsers.parts import CallArguments, CallClosed, CallOpened, Tool
from api.parsers.tape import Script, Tape, stops_for


class Calls:
    """Opens calls one after the other, each to be filled and closed before the next."""

    def __init__(self, offered: Sequence[Tool], mint: Callable[[], str]) -> None:
        self._tools = {tool.name: tool for tool in offered}
        self._mint = mint
        self._index = -1

    @property
    def any_name(self) -> bool:
        """Nothing is known of the tools, so that every name may be one."""
        return not self._tools

    def may_be(self, name: str) -> bool:
        """Whether `name` is a tool that was offered."""
        return bool(name) and (self.any_name or name in self._tools)

    def parameters(self, name: str) -> Mapping[str, object]:
        """The schema of the tool's arguments; empty if nothing is known of them."""
        tool = self._tools.get(name)
        return tool.parameters if tool else {}

    def open(self, name: str, call_id: str = "") -> CallOpened:
        """A new call, with the id that the model gave it or with a fresh one."""
        self._index += 1
        return CallOpened(self._index, call_id or self._mint(), name)

    def arguments(self, text: str) -> CallArguments:
        """More of the open call's arguments."""
        return CallArguments(self._index, text)

    def close(self) -> CallClosed:
        """The open call's arguments are complete."""
        return CallClosed(self._index)

    def whole(self, name: str, arguments: str, call_id: str = "") -> Script[None]:
        """A call whose arguments, the text of a JSON object, are already there."""
        yield self.open(name, call_id)
        yield self.arguments(arguments)
        yield self.close()

    def stream(self, tape: Tape, ends: Iterable[str]) -> Script[None]:
        """The JSON object that comes next is the open call's arguments; it is told as it comes, and ends the call.

        What follows a mistake in it is told as arguments too, up to the first of `ends`, and the call stays open.
        """
        scanner = JsonScanner()
        while not (scanner.done or scanner.failed):
            text = tape.scan(scanner)
            if text:
                yield self.arguments(text)
            elif tape.over:
                return
            elif not scanner.failed:
                yield None
        if scanner.done:
            yield self.close()
        else:
            yield from self.rest(tape, ends)

    def rest(self, tape: Tape, ends: Iterable[str], before: str = "") -> Script[None]:
        """Everything up to the first of `ends`, or to the end, is told as arguments, as it stands, behind `before`.

        Nothing is told if there is nothing.
        """
        stops = stops_for(frozenset(filter(None, ends)))
        while True:
            text, end = tape.upto(stops)
            if text:
                yield self.arguments(before + text)
                before = ""
            if end or tape.over:
                return
            yield None


def read_value(tape: Tape) -> Script[str | None]:
    """The text of the JSON value that comes next; None if it is malformed or cut off."""
    scanner = JsonScanner()
    pieces: list[str] = []
    while not scanner.done:
        pieces.append(tape.scan(scanner))
        if scanner.failed or tape.over:
            break
        if not scanner.done:
            yield None
    return "".join(pieces) if scanner.done else None


def read_string(tape: Tape) -> Script[str | None]:
    """The JSON string that comes next, decoded; None if there is none."""
    if (yield from tape.peek()) != '"':
        return None
    text = yield from read_value(tape)
    return None if text is None else str(json.loads(text))


def is_object(text: str) -> bool:
    """Whether `text` is one JSON object and nothing else."""
    scanner = JsonScanner()
    return text.startswith("{") and scanner.scan(text, 0) == len(text) and scanner.done


def escaped(text: str) -> str:
    """`text` as it stands within a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
