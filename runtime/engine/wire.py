"""How commands and results cross a socket: msgpack frames, each behind its length.

A frame is four bytes of length (big-endian) and a msgpack array [number, name, fields]: the number of the command that
it is or answers, the name of the word, and its fields by name. Numbers below zero belong to no command.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from runtime.engine import commands as c

Word = c.Command | c.Result | c.Alive

WORDS: dict[str, type[Word]] = {word.__name__: word for word in (*c.Command.__args__, *c.Result.__args__, c.Alive)}
HEADER = struct.Struct(">I")
MOST_BYTES = 1 << 28
"""No frame is longer; a length beyond it means that the stream is out of step."""


@dataclass(frozen=True, slots=True)
class Frame:
    number: int
    word: Word


def encode(frame: Frame) -> bytes:
    """A frame as bytes, header included."""
    body = msgspec.msgpack.encode((frame.number, type(frame.word).__name__, frame.word))
    return HEADER.pack(len(body)) + body


class Decoder:
    """Cuts a stream of bytes into frames, however it arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take more bytes; give the frames that are complete with them.

        Raises:
            ValueError: the bytes are not frames.
        """
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer)
            if length > MOST_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            if len(self._buffer) < HEADER.size + length:
                return
            body = bytes(self._buffer[HEADER.size : HEADER.size + length])
            del self._buffer[: HEADER.size + length]
            yield _frame(body)


def _frame(body: bytes) -> Frame:
    number, name, fields = msgspec.msgpack.decode(body, type=tuple[int, str, msgspec.Raw])
    if name not in WORDS:
        raise ValueError(f"an unknown word {name!r}")
    word: Word = msgspec.msgpack.decode(fields, type=WORDS[name])
    return Frame(number, word)
