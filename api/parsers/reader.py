"""Reads the text of one choice as it comes: thinking, content, and calls of tools."""

import re
from collections.abc import Callable, Iterable, Sequence

from api.parsers.calls import Calls
from api.parsers.family import ToolFamily, mint_call_id
from api.parsers.format import Format
from api.parsers.parts import Content, Part, Thinking, Tool
from api.parsers.plain import PlainReader, Reader
from api.parsers.reasoning import ReasoningFamily
from api.parsers.tape import Script, Stops, Tape, stops_for

_LINES = re.compile(r"\n*")


def make_reader(
    *,
    tools: ToolFamily | None,
    reasoning: ReasoningFamily | None,
    offered: Sequence[Tool],
    prompt_tail: str,
    silent: frozenset[str] = frozenset(),
    mint: Callable[[], str] | None = None,
) -> Reader:
    """A reader for one choice.

    Args:
        tools: how calls are written; None: nothing is taken for a call.
        reasoning: how thinking is marked; None: everything is content.
        offered: what may be called. A call of anything else is content, for clients cannot answer it; if nothing is
            offered, every name may be called.
        prompt_tail: the end of the prompt, which may have opened thinking or a call.
        silent: markers that are special tokens here, and are never shown in thinking or content.
        mint: makes ids for the calls that bring none; None: as the family wants them.
    """
    if tools is None and reasoning is None and not silent:
        return PlainReader()
    calls = Calls(offered, mint or (tools.mint if tools else mint_call_id))
    return _Reader(tools.variants if tools else (), reasoning, calls, prompt_tail, silent)


class _Reader:
    """A Reader whose script runs as far as the text goes.

    White space that stands alone between calls and thinking, or between them and the end of the reply, is theirs.
    """

    def __init__(
        self,
        variants: tuple[tuple[Format, ...], ...],
        reasoning: ReasoningFamily | None,
        calls: Calls,
        prompt_tail: str,
        silent: frozenset[str],
    ) -> None:
        self._variants = variants
        self._marks = reasoning.marks if reasoning else ()
        self._calls = calls
        self._silent = silent
        self._tape = Tape()
        self._closing = reasoning.opened_by(prompt_tail) if reasoning else ""
        """The mark that ends the thinking, while there is any."""
        self._stopped = False
        self._overdue = ""
        """The mark that would have ended the thinking that was stopped."""
        self._given = "" if self._closing else self._opened_by(prompt_tail)
        """The opener that stands in the prompt, until it is read with the text."""
        self._tape.feed(self._given)
        self._bare = True
        """There was no content and no call yet, so that a call may begin without an opener."""
        self._marked = False
        """There was thinking or a call, so that white space at the end belongs to it."""
        self._script = self._reply()

    @property
    def held(self) -> int:
        """See Reader."""
        return max(self._tape.held - len(self._given), 0)

    @property
    def thinking(self) -> bool:
        """See Reader."""
        return bool(self._closing) and not self._stopped

    def feed(self, text: str) -> list[Part]:
        """See Reader."""
        self._tape.feed(text)
        return self._run()

    def finish(self) -> list[Part]:
        """See Reader."""
        self._tape.ended = True
        return self._run()

    def stop_thinking(self) -> None:
        """See Reader: calls are read again, and the mark that closes the thinking is still taken out."""
        self._stopped = True

    def _run(self) -> list[Part]:
        parts: list[Part] = []
        for part in self._script:
            if part is None:
                break
            parts.append(part)
        return parts

    @property
    def _formats(self) -> tuple[Format, ...]:
        return tuple(dict.fromkeys(format for variant in self._variants for format in variant))

    def _opened_by(self, prompt_tail: str) -> str:
        tail = prompt_tail.rstrip()
        openers = (opener for format in self._formats for opener in format.openers if opener)
        return next((opener for opener in openers if tail.endswith(opener)), "")

    def _stops(self, formats: Iterable[Format], *others: str) -> Stops:
        found = {opener for format in formats for opener in format.openers} | {*others}
        # A token within a marker would hide the marker.
        silent = {token for token in self._silent if not any(token in string for string in found)}
        return stops_for(frozenset(filter(None, found | silent)))

    def _reply(self) -> Script[None]:
        if self._closing:
            yield from self._think()
        while not self._tape.over:
            if not ((yield from self._thought()) or (yield from self._call(self._formats))):
                yield from self._content()

    def _thought(self) -> Script[bool]:
        """The thinking that comes next; False if there is none."""
        self._closing = yield from self._accept_begin()
        if self._closing:
            yield from self._think()
            return True
        return False

    def _accept_begin(self) -> Script[str]:
        """Read a mark that opens thinking; return the one that will close it, '' if nothing was read."""
        for begin, end in self._marks:
            self._tape.mark()
            yield from self._tape.space()
            if (yield from self._tape.accept(begin)):
                self._tape.release()
                return end
            self._tape.rewind()
        return ""

    def _think(self) -> Script[None]:
        """Thinking, up to the mark that closes it, a call that does, or the moment when it is stopped."""
        self._marked = True
        # A model may open what the prompt has opened already.
        yield from self._accept_begin()
        yield from self._tape.word(_LINES)
        formats = tuple(format for format in self._formats if format.while_thinking)
        stops = self._stops(
            (), self._closing, "\n", *(opener for format in formats for opener in format.while_thinking)
        )
        while not self._stopped:
            text, marker = self._tape.upto(stops)
            if text:
                yield Thinking(text)
            if marker:
                if (yield from self._thinking_ends(marker, formats)):
                    return
            elif self._tape.over:
                return
            else:
                yield None
        self._overdue, self._closing = self._closing, ""

    def _thinking_ends(self, marker: str, formats: tuple[Format, ...]) -> Script[bool]:
        """Whether thinking ends with this marker; if not, it is thinking too."""
        tape = self._tape
        tape.mark()
        lines = yield from tape.word(_LINES)
        if (yield from tape.accept(self._closing)):
            tape.release()
            self._closing = ""
            yield from tape.word(_LINES)
            return True
        tape.rewind()
        if not lines and (yield from self._call(formats)):
            self._closing = ""
            return True
        text = tape.take(len(lines or marker))
        if text not in self._silent:
            yield Thinking(text)
        return False

    def _call(self, formats: tuple[Format, ...]) -> Script[bool]:
        """The calls that come next, in the first of these formats that they are written in; False if there are none."""
        for format in formats:
            if "" in format.openers and not self._bare:
                continue
            self._tape.mark()
            yield from self._tape.space()
            if (yield from format.read(self._tape, self._calls)):
                self._tape.release()
                self._given, self._bare, self._marked = "", False, True
                self._variants = next(((variant,) for variant in self._variants if format in variant), ())
                return True
            self._tape.rewind()
        return False

    def _content(self) -> Script[None]:
        """Content, up to a call or to the end of the reply."""
        tape = self._tape
        tape.take(len(self._given))
        self._given = ""
        if self._marked and (yield from self._only_space_left()):
            return
        formats = self._formats
        stops = self._stops(formats, self._overdue)
        while True:
            text, marker = tape.upto(stops)
            if text:
                self._bare = False
                yield Content(text)
            if not marker:
                if tape.over:
                    return
                yield None
            elif marker == self._overdue:
                tape.take(len(marker))
                yield from tape.word(_LINES)
                self._overdue, stops = "", self._stops(formats)
            elif (yield from self._call(formats)):
                return
            else:
                self._bare = False
                tape.take(len(marker))
                if marker not in self._silent:
                    yield Content(marker)

    def _only_space_left(self) -> Script[bool]:
        """Read white space that is all there is up to the end of the reply."""
        self._tape.mark()
        yield from self._tape.space()
        if self._tape.over:
            self._tape.release()
            return True
        self._tape.rewind()
        return False
