"""Watches one choice for repetition while it is written, at a bounded price per token however long it gets."""

from collections.abc import Callable, Iterator
from functools import partial

from api.text.periods import Run, runs
from api.text.repetition import ASKED_FACTOR, SAME, Nature, Prompt, RepetitionTrigger, least, too_much
from api.text.sentences import LIMITS, Sentences
from runtime.types import RepetitionPolicy

EVERY = 16
"""Tokens from one look to the next."""

WINDOW = 2048
"""Symbols that are looked back at; a run that fills them is followed by counting on."""

NUMBER = "0"
"""What stands for a number, however many tokens it has."""

CHARACTERS = 0x110000
"""How many symbols there are: those of Python's strings."""


class Track:
    """The newest symbols of a sequence, about one a token, and the text behind each."""

    def __init__(self) -> None:
        self._symbols = ""
        self._new: list[str] = []
        self._pieces: list[str] = []
        self._filling = Run(0, 0)
        """The run that fills the window, with all that it has filled before."""

    def add(self, symbol: str, piece: str) -> None:
        """Take one symbol more, and its text."""
        self._new.append(symbol)
        self._pieces.append(piece)

    def look(self) -> Iterator[Run]:
        """The runs at the end, as `runs` gives them."""
        new = len(self._new)
        self._symbols = (self._symbols + "".join(self._new))[-WINDOW:]
        self._new.clear()
        del self._pieces[:-WINDOW]
        before, self._filling = self._filling, Run(0, 0)
        for run in runs(self._symbols):
            if run.extent == WINDOW:
                known = before.extent + new if before.period == run.period else WINDOW
                self._filling = run = Run(run.period, known)
            yield run

    def end(self, symbols: int) -> str:
        """The text of the newest symbols."""
        return "".join(self._pieces[-symbols:])


class RepetitionWatch:
    """Takes the tokens of one choice as they come, and says when it is time to end it.

    Looked at are the tokens as they are, the tokens with all numbers alike, and the sentences.
    """

    def __init__(self, policy: RepetitionPolicy, prompt: Callable[[], str]) -> None:
        """`prompt` gives the text that is answered; it is called once, and only if something repeats itself."""
        self._policy = policy
        self._prompt = Prompt(prompt)
        self._least = least(policy)
        self._plain, self._numberless = Track(), Track()
        self._in_number = False
        self._sentences = Sentences(LIMITS[policy].sentences * ASKED_FACTOR)
        self._tokens = self._blank = 0

    def take(self, token_id: int, piece: str) -> RepetitionTrigger | None:
        """Take one token and the text that came out with it, which may be none; return what to end the choice for."""
        symbol = chr(token_id % CHARACTERS)
        self._plain.add(symbol, piece)
        number = piece.strip().isdecimal()
        if not (number and self._in_number):
            self._numberless.add(NUMBER if number else symbol, piece)
        self._in_number = number
        self._blank = 0 if piece and not piece.isspace() else self._blank + 1
        self._tokens += 1
        return None if self._tokens % EVERY else self._look()

    def _look(self) -> RepetitionTrigger | None:
        text = self._plain.end(EVERY)
        found = self._blanks() or self._loop(self._plain, counted=False) or self._loop(self._numberless, counted=True)
        return found or self._same_sentences(text)

    def _blanks(self) -> RepetitionTrigger | None:
        """Blanks that come in no order."""
        limit = SAME[self._policy][Nature.BLANK]
        return RepetitionTrigger.BLANK_LOOP if self._blank >= limit.tokens else None

    def _loop(self, track: Track, *, counted: bool) -> RepetitionTrigger | None:
        for run in track.look():
            if run.extent < self._least.needed(run.period):
                continue
            unit, judge = track.end(run.period), partial(too_much, run, policy=self._policy, counted=counted)
            if judge(unit):
                patience = self._prompt.patience(unit, self._policy, counted=counted)
                if found := judge(unit, patience=patience):
                    return found
        return None

    def _same_sentences(self, text: str) -> RepetitionTrigger | None:
        few = LIMITS[self._policy]
        if not self._sentences.feed(text) or not (often := self._sentences.repeated(few)):
            return None
        patience = self._prompt.patience(f"{often} ", self._policy)
        return RepetitionTrigger.SENTENCE_LOOP if self._sentences.repeated(few, patience) else None
