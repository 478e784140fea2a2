"""Encodes rendered prompts so that marked text (api/text/shield.py) never becomes a control token."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise, takewhile
from typing import NamedTuple

from tokenizers import AddedToken, Encoding, Tokenizer

from api.errors import ApiError, bad_request
from api.text.shield import MarkedText

ROUNDS = 8
"""How often a text is cut anew; each cut shows at most the tokens that were inside a longer one."""

_SENTINELS = "\n.a"
"""What is put before a piece that goes on with a text, so that it is not given the space that a SentencePiece
tokeniser puts before a text. Where the first of them grows together with the piece, the next is tried."""


class Span(NamedTuple):
    """Where a control token is in a text."""

    id: int
    start: int
    end: int


class GuardedEncoder:
    """Finds the control tokens that a client's text would have become, and encodes them as text.

    As long as there are none, the ids are those of the whole text encoded at once.
    """

    def __init__(self, backend: Tokenizer, control: Mapping[str, int]) -> None:
        """`control` has the ids of the control tokens by their names."""
        self._backend = backend
        self._names = {id: name for name, id in control.items()}
        self._ids = frozenset(self._names)
        added = backend.get_added_tokens_decoder()
        self._certain = {id for id in self._names if _wherever_written(backend, added[id])}

    def encode(self, prompt: MarkedText) -> tuple[int, ...]:
        """The ids of a prompt.

        Raises:
            ApiError: 400; a control token cannot be kept out. No vocabulary that we know of has such a one.
        """
        # A batch of one, because `encode` keeps the interpreter's lock for as long as it takes (tokenizers 0.23).
        (encoding,) = self._backend.encode_batch_fast([prompt.text], add_special_tokens=False)
        ids = encoding.ids
        return tuple(ids if self._all_written(ids, prompt.rendered) else self._encode_cut(prompt.text, prompt.marks()))

    def _all_written(self, ids: list[int], rendered: str) -> bool:
        """Whether the control tokens are those that have no mark inside: the template's, and the assistant's tags."""
        found = self._ids.intersection(ids)
        return found <= self._certain and all(ids.count(id) == rendered.count(self._names[id]) for id in found)

    def _encode_cut(self, text: str, marks: Sequence[int]) -> list[int]:
        cuts: set[int] = set()
        for _ in range(ROUNDS):
            ids, control = self._encode_pieces(text, sorted(cuts))
            more = {cut for span in control if (cut := self._cut(text, marks, span)) is not None}
            if not more:
                return ids
            cuts |= more
        raise _cannot_be_text()

    def _cut(self, text: str, marks: Sequence[int], span: Span) -> int | None:
        """Where to cut a control token in two that is not the template's: at its mark, or behind its first character
        if a normaliser made it of other characters."""
        index = bisect_right(marks, span.start)
        if index < len(marks) and marks[index] < span.end:
            return marks[index]
        written = text[span.start : span.end].strip() == self._names[span.id].strip()
        return None if written else span.start + 1

    def _encode_pieces(self, text: str, cuts: Sequence[int]) -> tuple[list[int], list[Span]]:
        """The ids of a text that is cut at `cuts`, and where the control tokens among them are."""
        bounds = [0, *cuts, len(text)]
        head, *rest = [text[start:end] for start, end in pairwise(bounds)]
        encodings = self._backend.encode_batch([head, *(_SENTINELS[0] + piece for piece in rest)], False, False)
        first = encodings[0]
        ids, control = list(first.ids), self._spans(first.ids, first.offsets, 0)
        for start, piece, encoding in zip(cuts, rest, encodings[1:], strict=True):
            piece_ids, offsets = self._behind_sentinel(encoding, piece)
            ids += piece_ids
            control += self._spans(piece_ids, offsets, start - 1)
        return ids, control

    def _behind_sentinel(self, encoding: Encoding, piece: str) -> tuple[list[int], list[tuple[int, int]]]:
        others = (self._backend.encode_batch([sentinel + piece], False, False)[0] for sentinel in _SENTINELS[1:])
        for candidate in chain([encoding], others):
            begin = sum(1 for _ in takewhile(lambda offsets: offsets[1] <= 1, candidate.offsets))
            if all(start >= 1 for start, _ in candidate.offsets[begin : begin + 1]):
                return candidate.ids[begin:], candidate.offsets[begin:]
        raise _cannot_be_text()

    def _spans(self, ids: Iterable[int], offsets: Iterable[tuple[int, int]], shift: int) -> list[Span]:
        return [
            Span(id, shift + start, shift + end)
            for id, (start, end) in zip(ids, offsets, strict=True)
            if id in self._names
        ]


def _wherever_written(backend: Tokenizer, token: AddedToken) -> bool:
    """Whether a tokeniser finds a control token wherever its name is written, so that counting names is enough."""
    seen = backend.normalizer.normalize_str(token.content) if token.normalized and backend.normalizer else token.content
    return seen == token.content and not token.single_word


def _cannot_be_text() -> ApiError:
    return bad_request("The messages hold a control token of the model that cannot be told as text.", param="messages")
