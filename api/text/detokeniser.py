"""Turns token ids into text as they come, without ever cutting a character in two.

tokenizers' own DecodeStream is not used: it loses what it holds when a sequence ends within a character, and
raises "Invalid prefix" on bytes that are no UTF-8 (seen with tokenizers 0.23).
"""

import codecs
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

REPLACEMENT = "\ufffd"
"""What a decoder writes for bytes that are no UTF-8, and for a character that is not all there yet."""

HOLD_LIMIT = 16
"""Ids after which text that still ends in REPLACEMENT is taken for what it is: no character is that long."""


class Detokeniser(Protocol):
    """Gives the text of one sequence in pieces; together they are the whole sequence's text, wherever it is cut."""

    def feed(self, token_id: int) -> str:
        """Take the next id; return the text that is now certain, possibly none."""
        ...

    def finish(self) -> str:
        """There are no more ids: return what was held back."""
        ...


class ByteLevelDetokeniser:
    """For byte-level BPE, where every id stands for fixed bytes: an incremental UTF-8 decoder is all it takes."""

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        """`bytes_of` gives an id's bytes; none for an id that has no text."""
        self._bytes_of = bytes_of
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        return self._utf8.decode(self._bytes_of(token_id))

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class WindowDetokeniser:
    """For any other vocabulary: decodes the newest ids behind the ones before them, and returns what they add.

    The ids before are needed because a decoder may treat the first id of a text in a way of its own: a
    SentencePiece decoder drops its leading space. Runs of byte ids (`<0x0A>`) are held until they end, because
    one byte that does not fit turns the whole run into replacement characters.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        byte_ids: frozenset[int],
        silent: Callable[[int], bool],
        names: Mapping[int, str],
    ) -> None:
        """`decode` gives the text of several ids, `byte_ids` are those that stand for one byte each, `silent`
        tells the ids that have no text, and `names` has those of them that are to be written all the same."""
        self._decode = decode
        self._byte_ids = byte_ids
        self._silent = silent
        self._names = names
        self._before: list[int] = []
        self._before_length = 0
        self._held: list[int] = []

    def feed(self, token_id: int) -> str:
        if token_id in self._names:
            return self._release(final=True) + self._names[token_id]
        if self._silent(token_id):
            return ""
        self._held.append(token_id)
        return "" if token_id in self._byte_ids else self._release(final=False)

    def finish(self) -> str:
        return self._release(final=True)

    def _release(self, final: bool) -> str:
        text = self._decode(self._before + self._held)[self._before_length :]
        complete = text and not text.endswith(REPLACEMENT)
        if not complete and not final and len(self._held) < HOLD_LIMIT:
            return ""
        if text:
            self._before, self._held = self._held, []
            self._before_length = len(self._decode(self._before))
        return text
