"""Reads the text of one choice as it comes: thinking, content, and calls of tools."""

from collections.abc import Callable, Sequence

from api.parsers.calls import Calls
from api.parsers.family import ToolFamily, mint_call_id
from api.parsers.parts import Part, Tool
from api.parsers.plain import PlainReader, Reader
from api.parsers.reasoning import ReasoningFamily
from api.parsers.reply import Reply
from api.parsers.tape import Tape


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
    tape = Tape()
    reply = Reply(
        tape,
        Calls(offered, mint or (tools.mint if tools else mint_call_id)),
        tools.variants if tools else (),
        reasoning.marks if reasoning else (),
        silent,
        closing=reasoning.opened_by(prompt_tail) if reasoning else "",
        prompt_tail=prompt_tail,
    )
    return _Reader(tape, reply)


class _Reader:
    """A Reader that lets a reply be read as far as the text goes."""

    def __init__(self, tape: Tape, reply: Reply) -> None:
        self._tape = tape
        self._reply = reply
        self._script = reply.script()

    @property
    def held(self) -> int:
        """See Reader."""
        return max(self._tape.held - len(self._reply.given), 0)

    @property
    def thinking(self) -> bool:
        """See Reader."""
        return bool(self._reply.closing) and not self._reply.stopped

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
        self._reply.stopped = True

    def _run(self) -> list[Part]:
        parts: list[Part] = []
        for part in self._script:
            if part is None:
                break
            parts.append(part)
        return parts
