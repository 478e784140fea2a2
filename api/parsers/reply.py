"""The script by which a reply is read: thinking, content and calls, in whatever order they come."""

import re
from collections.abc import Iterable

from api.parsers.calls import Calls
from api.parsers.format import Format
from api.parsers.parts import Content, Thinking
from api.parsers.tape import Script, Stops, Tape, stops_for

_LINES = re.compile(r"\n*")


class Reply:
    """Reads a tape to its end.

    White space that stands alone between calls and thinking, or between them and the end of the reply, is theirs.
    """

    def __init__(
        self,
        tape: Tape,
        calls: Calls,
        variants: tuple[tuple[Format, ...], ...],
        marks: tuple[tuple[str, str], ...],
        silent: frozenset[str],
        *,
        closing: str,
        prompt_tail: str,
    ) -> None:
        self._tape = tape
        self._calls = calls
        self._variants = variants
        self._marks = marks
        self._silent = silent
        self.closing = closing
        """The mark that ends the thinking, while there is any."""
        self.stopped = False
        """Thinking is over, whatever the marks say."""
        self._overdue = ""
        """The mark that would have ended the thinking that was stopped."""
        self.given = "" if closing else self._opened_by(prompt_tail)
        """The opener that stands in the prompt, until it is read with the text."""
        self._tape.feed(self.given)
        self._bare = True
        """There was no content and no call yet, so that a call may begin without an opener."""
        self._marked = False
        """There was thinking or a call, so that white space at the end belongs to it."""

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

    def script(self) -> Script[None]:
        """Read all of the reply."""
        if self.closing:
            yield from self._think()
        while not self._tape.over:
            if not ((yield from self._thought()) or (yield from self._call(self._formats))):
                yield from self._content()

    def _thought(self) -> Script[bool]:
        """The thinking that comes next; False if there is none."""
        self.closing = yield from self._accept_begin()
        if self.closing:
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
        stops = self._stops((), self.closing, "\n", *(opener for format in formats for opener in format.while_thinking))
        while not self.stopped:
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
        self._overdue, self.closing = self.closing, ""

    def _thinking_ends(self, marker: str, formats: tuple[Format, ...]) -> Script[bool]:
        """Whether thinking ends with this marker; if not, it is thinking too."""
        tape = self._tape
        tape.mark()
        lines = yield from tape.word(_LINES)
        if (yield from tape.accept(self.closing)):
            tape.release()
            self.closing = ""
            yield from tape.word(_LINES)
            return True
        tape.rewind()
        if not lines and (yield from self._call(formats)):
            self.closing = ""
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
                self.given, self._bare, self._marked = "", False, True
                self._variants = next(((variant,) for variant in self._variants if format in variant), ())
                return True
            self._tape.rewind()
        return False

    def _content(self) -> Script[None]:
        """Content, up to a call or to the end of the reply."""
        tape = self._tape
        tape.take(len(self.given))
        self.given = ""
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
