"""Notices a text that goes on with the same few sentences, in any order or with a slip now and then."""

import re
from collections import Counter, deque
from dataclasses import dataclass

from api.text.repetition import Nature, nature
from runtime.types import RepetitionPolicy

_END = re.compile(r"(?<!\d)[.!?]\s|\n")
_WORD = re.compile(r"\w+")

LEAST_WORDS = 3
"""What has fewer words, such as the answers in a dialogue, is passed over."""

LONGEST = 4096
"""Characters that are kept of a sentence without an end."""


@dataclass(frozen=True, slots=True)
class Few:
    """Of the last `sentences` the share that are among the `different` ones which come most often."""

    sentences: int
    different: int
    share: float
    words: int
    """So many are in them at least."""


LIMITS = {
    RepetitionPolicy.SAFE: Few(sentences=100, different=4, share=0.75, words=400),
    RepetitionPolicy.STRICT: Few(sentences=30, different=3, share=0.9, words=100),
}


class Sentences:
    """The newest sentences and lines of a text."""

    def __init__(self, most: int) -> None:
        """`most` are remembered."""
        self._rest = ""
        self._said: deque[str] = deque(maxlen=most)

    def feed(self, text: str) -> bool:
        """Take more of the text; return whether a sentence is complete."""
        *complete, rest = _END.split(self._rest + text)
        self._rest = rest[-LONGEST:]
        said = [each for each in complete if nature(each) is Nature.WORDS]
        known = [words for each in said if len(words := _WORD.findall(each.casefold())) >= LEAST_WORDS]
        self._said.extend(map(" ".join, known))
        return bool(known)

    def repeated(self, few: Few, factor: int = 1) -> str:
        """The sentence that comes most often, if it and few others are nearly all there is; else nothing. A single one
        that never changes is no business of this."""
        wanted = few.sentences * factor
        if len(self._said) < wanted:
            return ""
        counts = Counter(list(self._said)[-wanted:])
        words = sum((sentence.count(" ") + 1) * times for sentence, times in counts.items())
        often = counts.most_common(few.different)
        same = sum(times for _, times in often) >= few.share * wanted
        return often[0][0] if same and len(counts) > 1 and words >= few.words * factor else ""
