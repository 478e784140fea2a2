"""Output that spells a word of a grammar: a matcher for each row that has one, and the tokens that it lets through."""

import logging
from collections.abc import Collection, Mapping, Sequence
from copy import copy as copy_of
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import fill_next_token_bitmask
from numpy.typing import NDArray
from transformers import AutoTokenizer
from transformers.tokenization_utils_tokenizers import TokenizersBackend

log = logging.getLogger("troupe.engine")

WORD_BITS = 32
_BITS = (np.uint32(1) << np.arange(WORD_BITS, dtype=np.uint32)).view(np.int32)


class Matcher:
    """How far the output of one row has come in its grammar: a function of the grammar and the output ids.

    Once in error it stays in error, and takes whatever comes.
    """

    def __init__(self, matcher: LLMatcher | None, stop_ids: Collection[int], *, refusal: str = "") -> None:
        """Without a matcher it is in error from the start, and `refusal` says why."""
        self._matcher = matcher
        self._refusal = refusal
        ids = np.array(sorted(stop_ids), dtype=np.int64)
        self._stop_words, self._stop_bits = ids // WORD_BITS, np.uint32(1) << (ids % WORD_BITS).astype(np.uint32)

    @property
    def error(self) -> str:
        """One line about why the row cannot go on; empty if it can."""
        if self._matcher is None:
            return self._refusal
        return self._matcher.get_error().split("\n", 1)[0] if self._matcher.is_error() else ""

    @property
    def complete(self) -> bool:
        """Whether the output is a word of the grammar that nothing can be added to."""
        return self._matcher is not None and self._matcher.is_stopped() and not self._matcher.is_error()

    def advance(self, token_ids: Sequence[int]) -> None:
        """Take tokens of the output; one that the grammar does not allow there is an error."""
        if self._matcher and not self._matcher.is_error():
            self._matcher.consume_tokens(list(token_ids))

    def copy(self) -> "Matcher":
        """Another one, as far in the same grammar.

        The two share what llguidance finds out about the grammar, and the limit of that: where it turns out too complex
        for one (a quarter of a million states of a pattern), it does for the other.
        """
        copy = copy_of(self)
        copy._matcher = self._matcher and self._matcher.deep_copy()
        return copy

    def fill(self, bits: NDArray[np.int32]) -> None:
        """Write which tokens may come next into `bits`, shape [1, words]; see Mask.

        Where the output is a word of the grammar as it is, the row's stop ids are among them. It may turn out here that
        the grammar is too complex; in error, the bits mean nothing.
        """
        if self._matcher:
            fill_next_token_bitmask(self._matcher, bits)
            if self._matcher.is_accepting():
                np.bitwise_or.at(bits[0].view(np.uint32), self._stop_words, self._stop_bits)


@dataclass(frozen=True, slots=True)
class Mask:
    """Which tokens some rows of a batch may choose from; the other rows are free."""

    rows: tuple[int, ...]
    """Their places in the batch."""
    bits: mx.array
    """int32, shape [rows, words]: bit b of word w stands for token 32 w + b."""

    def apply(self, logits: mx.array) -> mx.array:
        """Logits of the whole batch, shape [batch, vocabulary], with minus infinity for what a row may not choose."""
        allowed = (self.bits[:, :, None] & mx.array(_BITS)) != 0
        allowed = allowed.reshape(len(self.rows), -1)[:, : logits.shape[-1]]
        if len(self.rows) == logits.shape[0]:
            return mx.where(allowed, logits, -mx.inf)
        rows, masked = mx.array(self.rows), logits[...]
        masked[rows] = mx.where(allowed, logits[rows], -mx.inf)
        return masked


class Grammars:
    """Makes the matchers of one model."""

    def __init__(self, tokenizer: LLTokenizer | None, *, refusal: str = "") -> None:
        """Without a tokeniser every grammar is refused, and `refusal` says why."""
        self._tokenizer = tokenizer
        self._refusal = refusal
        self._words = -(-tokenizer.vocab_size // WORD_BITS) if tokenizer else 0

    def matcher(self, grammar: str, stop_ids: Collection[int]) -> Matcher:
        """A matcher at the beginning of a grammar; in error if it is none.

        Most take about a millisecond, a schema of hundreds of properties ten to twenty, the largest 0.4 s.
        """
        if self._tokenizer is None:
            return Matcher(None, (), refusal=self._refusal)
        known = [id for id in stop_ids if id < self._tokenizer.vocab_size]
        return Matcher(LLMatcher(self._tokenizer, grammar, log_level=0), known)

    def mask(self, matchers: Mapping[int, Matcher]) -> Mask:
        """What rows may choose from next, by their places in the batch; none of the matchers is in error.

        One after the other: 8 rows take 0.1 ms in all, which threads (LLExecutor) do not better.
        """
        bits = np.empty((len(matchers), self._words), dtype=np.int32)
        for i, matcher in enumerate(matchers.values()):
            matcher.fill(bits[i : i + 1])
        return Mask(tuple(matchers), mx.array(bits))


def load(path: Path, *, vocab_size: int, eos_ids: Collection[int], trust_remote_code: bool) -> Grammars:
    """Grammars over the vocabulary of the model in `path`: the one that the text floor reads, of the same library.

    llguidance holds the interpreter's lock for as long as it reads one: 0.2 s for 49,000 tokens, 2 s for 256,000.
    """
    try:
        hf = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
        if not isinstance(hf, TokenizersBackend):
            raise ValueError("it is of a kind that the tokenizers library cannot run")
        hf.backend_tokenizer.no_truncation()
        hf.backend_tokenizer.no_padding()
        text = hf.backend_tokenizer.to_str()
        # Gemma 3's tokeniser has more ids than its model: those are never chosen.
        ids = max(vocab_size, 1 + max(hf.backend_tokenizer.get_vocab(with_added_tokens=True).values()))
        # An end-of-sequence id is a must here, whichever: Matcher.fill minds those that the row has.
        known = sorted(id for id in eos_ids if id < vocab_size)
        return Grammars(LLTokenizer(text, n_vocab=ids, eos_token=known or None))
    # Whatever is wrong with the files comes out as whatever the libraries stumble over first.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("no grammars with this model: its tokeniser cannot be loaded: %s", reason)
        return Grammars(None, refusal=f"grammars need the model's tokeniser, which cannot be loaded: {reason}")
