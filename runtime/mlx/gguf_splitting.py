"""The ways in which byte-level tokenizers cut text into words, under the names that GGUF files call them by.

A file names one under `tokenizer.ggml.pre`; what a name stands for is told by llama.cpp (src/llama-vocab.cpp), the
patterns by the tokenizer.json of the models they come from.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Splitting:
    """How a byte-level vocabulary cuts text into words, within which alone it merges."""

    pattern: str | None = None
    """None: GPT-2's own."""
    lone_digits: bool = False
    """Every digit is a word of its own, cut out before `pattern` is applied."""
    whole_words: bool = False
    """A word that is a token is taken as it is, even if no merges lead to it."""
    adds_bos: bool = False
    """Unless the file says otherwise."""
    composes: bool = False
    """The text is brought into Unicode's form NFC first."""


GPT2 = Splitting()
GPT2_LONE_DIGITS = Splitting(lone_digits=True)
LLAMA3 = Splitting(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    whole_words=True,
    adds_bos=True,
)
QWEN2 = Splitting(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    composes=True,
)
TEKKEN = Splitting(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    whole_words=True,
    adds_bos=True,
)

SPLITTINGS = {
    "gpt-2": GPT2,
    "smollm": GPT2_LONE_DIGITS,
    "starcoder": GPT2_LONE_DIGITS,
    "refact": GPT2_LONE_DIGITS,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "llama-bpe": LLAMA3,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "tekken": TEKKEN,
}
