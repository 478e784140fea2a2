"""The terminal's screen: shows pictures on its alternate screen, writes only what changed, and gives it back."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.segment import ControlType

from api.dashboard import keys
from api.dashboard.parts import Block, Line


def make_console(*, no_color: bool = False) -> Console:
    """For standard output; NO_COLOR, TERM and COLORTERM are heeded."""
    return Console(file=sys.stdout, no_color=True if no_color else None, highlight=False, markup=False, emoji=False)


def is_screen(console: Console) -> bool:
    """Whether pictures can be drawn over one another; if not, they are printed one below the other."""
    return console.is_terminal and not console.is_dumb_terminal


class Screen:
    """What is shown now, so that the next picture need not be written as a whole."""

    def __init__(self, console: Console, keyboard: int | None) -> None:
        """`keyboard` is a terminal's file descriptor, or None where there are no keys."""
        self._console = console
        self._keyboard = keyboard
        self._shown: Block = []
        self._back = ExitStack()
        self._size = (0, 0)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The alternate screen, without a cursor; the terminal is as it was however this ends."""
        try:
            self._take()
            yield
        finally:
            self._back.close()

    def _take(self) -> None:
        if self._keyboard is not None:
            self._back.enter_context(keys.unbuffered(self._keyboard))
        self._back.callback(self._leave)
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)
        self._size = (0, 0)

    def _leave(self) -> None:
        self._console.show_cursor(True)
        self._console.set_alt_screen(False)

    def suspend(self) -> None:
        """Give the terminal back and stop all that the shell started with us, as Ctrl-Z does; return, with the screen
        taken again, when the shell continues it."""
        self._back.close()
        os.kill(0, signal.SIGTSTP)
        self._take()

    def size(self) -> tuple[int, int]:
        """Width and height now."""
        width, height = self._console.size
        return width, height

    def draw(self, block: Block, size: tuple[int, int]) -> None:
        """Show a picture that was made for `size`."""
        anew = size != self._size
        before = [] if anew else self._shown
        changed = [(at, row) for at, row in enumerate(block) if at >= len(before) or before[at] != row]
        self._shown, self._size = block, size
        if changed or anew:
            self._console.print(_Changes(changed, anew), end="", crop=False, soft_wrap=True)


class _Changes:
    """Lines at their places, as rich prints them."""

    def __init__(self, rows: list[tuple[int, Line]], anew: bool) -> None:
        self._rows = rows
        self._anew = anew

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._anew:
            yield Control((ControlType.HOME,), (ControlType.CLEAR,)).segment
        for at, row in self._rows:
            yield Control.move_to(0, at).segment
            yield from row


def text_of(block: Block) -> str:
    """A picture as plain text, without blanks at the ends of its lines."""
    return "\n".join("".join(each.text for each in row).rstrip() for row in block)
