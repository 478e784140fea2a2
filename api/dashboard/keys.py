"""The keyboard of a POSIX terminal, key by key."""

import os
import re
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

_NAMES = {
    "\x1b[A": "up", "\x1bOA": "up",
    "\x1b[B": "down", "\x1bOB": "down",
    "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home",
    "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end",
    "\x1b": "escape", "\x03": "interrupt", "\x1a": "suspend", "\x04": "interrupt",
}  # fmt: skip
_KEY = re.compile(r"\x1bO.|\x1b\[[0-?]*[ -/]*[@-~]|.", re.DOTALL)
"""A key that sends a sequence (ECMA-48, 5.4: CSI, parameters, a final byte), or a character."""


def named(text: str) -> list[str]:
    """The keys in what was read: characters are themselves, others have a name or are left out."""
    keys = (_NAMES.get(found, found) for found in _KEY.findall(text))
    return [key for key in keys if key.isprintable()]


@contextmanager
def unbuffered(fd: int) -> Iterator[None]:
    """The terminal gives each key at once, shows none, and makes no signals of Ctrl-C and Ctrl-Z; as before then."""
    before = termios.tcgetattr(fd)
    now = termios.tcgetattr(fd)
    now[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
    now[0] &= ~termios.ICRNL
    now[6][termios.VMIN], now[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSADRAIN, now)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


async def listen(fd: int, tell: Callable[[str], None]) -> None:
    """Tell every key by its name; return when the terminal is gone.

    A sequence comes in one read, as terminals write it in one; an escape at the end of a read is the key itself.
    """
    while True:
        await anyio.wait_readable(fd)
        try:
            data = os.read(fd, 1024)
        except OSError:
            return
        if not data:
            return
        for key in named(data.decode(errors="replace")):
            tell(key)
