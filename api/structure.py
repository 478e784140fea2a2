"""Answers of a given structure: grammars over tokens, in llguidance's Lark (its docs/syntax.md)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

from anyio.to_thread import run_sync
from llguidance import LLMatcher, LLParserLimits

from api.errors import bad_request
from api.json_schema import enforceable
from api.parsers.lark import Speller, json_value

_OPTIONS = '%llguidance {"no_forcing": true}\n'
"""Where a literal spells the name of a special token, llguidance 1.9 would force that token, and then refuse it."""


_LIMITS = LLParserLimits(max_grammar_size=100_000)
"""In symbols: what takes llguidance about 0.4 s. A tenth of a second is what a schema of 3,000 properties takes; but
while the engine reads a grammar everybody's tokens wait, and there may be one in each of hundreds of tools."""


@dataclass(frozen=True, slots=True)
class ThinkingMarks:
    """How a model marks the thinking that may come before its answer."""

    opening: str
    closing: str
    opened: bool = False
    """The prompt has opened it: the model has yet to close it."""


def json_answer(schema: Mapping[str, object] | None, *, param: str) -> str:
    """The rule `answer`: JSON that `schema` describes, or any object if there is none, written as json.dumps writes it.

    Properties come in the order of the schema; others may follow where it allows them, as JSON Schema does unless told.

    Raises:
        ApiError: 400; see `enforceable`.
    """
    return f"answer: {json_value({'type': 'object'} if schema is None else enforceable(schema, param=param))}\n"


def either(answer: str, other: str) -> str:
    """The rule `answer` that allows what one or the other of two definitions of it allows; `other` has all the rules
    besides."""
    return f"answer: first | second\n{_renamed(answer, 'first')}{_renamed(other, 'second')}"


def _renamed(answer: str, name: str) -> str:
    return name + answer.removeprefix("answer")


def grammar(answer: str, *, thinking: ThinkingMarks | None = None, marker_ids: Mapping[str, int] | None = None) -> str:
    """The grammar of a whole reply: what `answer`, the definition of a rule of that name, allows.

    Behind thinking, if the model thinks: any text up to the closing mark. Where the prompt has not opened it, the model
    is free to think or not. `marker_ids` has the ids of the marks that are tokens: as text they would never come.
    """
    if thinking is None:
        return f"{_OPTIONS}start: answer\n{answer}"
    spell = Speller(marker_ids or {})
    opening = spell(thinking.opening)
    if not thinking.opened:
        start = f"({opening} thoughts)? answer"
    else:  # Some models open it once more; where the mark is text, it is text like any other by then.
        start = f"({opening})? thoughts answer" if spell.has_token(thinking.opening) else "thoughts answer"
    return f"{_OPTIONS}start: {start}\n{_thoughts(thinking.closing, spell)}{answer}"


def _thoughts(closing: str, spell: Speller) -> str:
    """The rule `thoughts`: text, the mark that closes it, and line breaks, which readers take for the mark's."""
    blank = "/\\n{0,2}/"
    if spell.has_token(closing):
        return f"thoughts: /(?s:.*)/ {spell(closing)} {blank}\n"
    return f"thoughts: closed {blank}\nclosed[lazy]: THOUGHTS {spell(closing)}\nTHOUGHTS: /(?s:.*)/\n"


async def check(text: str, *, param: str) -> None:
    """Have llguidance compile a grammar, in a worker thread: most take a millisecond, the largest a tenth of a second.

    Raises:
        ApiError: 400; there is no such answer, or what it should be cannot be enforced, or is too large.
    """
    failed, messages = await run_sync(partial(LLMatcher.validate_grammar_with_warnings, text, limits=_LIMITS))
    if failed:
        raise bad_request(f"{param}: {_reason(messages[0])}", param=param)


_AT_FAULT = {"regex parse error": "pattern: ", "Unknown format": "format: ", "Pointer ": "$ref: "}
"""The keyword that a message of llguidance's is about, where it does not say so itself."""


def _reason(message: str) -> str:
    """llguidance's words in one line, without the part of the grammar that it quotes below them."""
    lines = takewhile(lambda line: not line.lstrip().startswith("1 | "), message.splitlines())
    reason = " ".join(" ".join(lines).split()).split("failed to compile JSON schema: ", 1)[-1]
    return next((keyword for start, keyword in _AT_FAULT.items() if reason.startswith(start)), "") + reason
