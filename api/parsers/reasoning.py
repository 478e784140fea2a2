"""How models mark their thinking, and what is made of it where the marks are missing."""

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReasoningFamily:
    """The marks of thinking, and whether a reply begins with thinking even if nothing has opened it.

    Thinking stands at the beginning of a reply, or where nothing but white space parts it from that, from thinking
    or from a call; a mark within content is content. The line breaks between the marks and the text on either side
    are the marks', as the templates that remove old thinking see it (Qwen3:
    `content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n')`).
    """

    name: str
    marks: tuple[tuple[str, str], ...]
    """What opens thinking, and what closes it."""
    assumed: bool = False
    """Thinking is open at the beginning, unless the prompt has closed it."""
    guessed: bool = False
    """Nothing but the text can tell whether the model thinks at all."""

    @property
    def markers(self) -> frozenset[str]:
        """Strings that may be special tokens of the vocabulary, and must reach the reader as text."""
        return frozenset(mark for pair in self.marks for mark in pair)

    def opened_by(self, prompt_tail: str) -> str:
        """The mark that will close the thinking which is open behind a prompt; '' if none is open."""
        tail = prompt_tail.rstrip()
        for begin, end in self.marks:
            if tail.endswith(begin):
                return end
            if tail.endswith(end):
                return ""
        return self.marks[0][1] if self.assumed else ""


_THINK = ("<think>", "</think>")

QWEN3 = ReasoningFamily("qwen3", (_THINK,))
"""The template opens it (Qwen3 2507 Thinking, Qwen3.5), the model does (Qwen3), or there is none.

As vLLM's qwen3_reasoning_parser, but that we see the prompt: without a mark there or in the text, text is content.
"""

DEEPSEEK_R1 = ReasoningFamily("deepseek_r1", (_THINK,), assumed=True)
"""A reply begins with thinking whether or not `<think>` is there (vLLM's deepseek_r1_reasoning_parser and its base).

Not behind a prompt that ends with `</think>`, as DeepSeek V3.1's does where thinking is switched off.
"""

_MARKS = (
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|think:start|>", "<|think:end|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>thought", "<channel|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    _THINK,
)
"""Seed-OSS, LongCat (twice), Command A and R7B, Apertus, Gemma 4, Magistral and Ministral 3, Kimi-VL, all others.

From their chat templates, and from mlx_lm.tokenizer_utils, which knows the same.
"""


def reasoning_family(name: str, chat_template: str, vocabulary: Container[str]) -> ReasoningFamily:
    """The family that goes by `name`; `auto` looks for marks in the template, in the vocabulary, and then in the text.

    Raises:
        KeyError: there is no family of that name.
    """
    if name != "auto":
        return {family.name: family for family in (QWEN3, DEEPSEEK_R1)}[name]
    known = [pair for pair in _MARKS if pair[0] in chat_template] or [pair for pair in _MARKS if pair[0] in vocabulary]
    return ReasoningFamily("auto", tuple(known[:1]) or _MARKS, guessed=not known)
