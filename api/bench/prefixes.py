"""What of a chat a server computes again: time to first token of chats that begin like earlier ones."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import anyio

from api.bench.client import Message, Streamed, Target, user
from api.bench.scenarios import BenchError, prompt_of

REPLY_TOKENS = 16
RULE, RULE_TOKENS = " You are a helpful assistant who answers.", 8
"""Behind a system prompt that is no language the default model ends its turn at once."""


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Time to first token in seconds, medians."""

    cold_s: float
    """Of a chat that begins like no other."""
    repeat_s: float
    """The same again."""
    turn_s: float
    """The same, the reply to it, and a new message."""
    tail_s: float
    """Another message behind the same prompt of the system."""


def _system_prompt(tokens: int) -> str:
    """Of about so many, and like no other from its beginning on."""
    return prompt_of(4) + RULE * (tokens // RULE_TOKENS)


def _chat(shared: str, message: str) -> list[Message]:
    return [{"role": "system", "content": shared}, user(message)]


def _next_turn(chat: list[Message], reply: Streamed) -> list[Message]:
    return [*chat, {"role": "assistant", "content": reply.text}, user("Tell me more about that, please.")]


async def prefixes(target: Target, *, shared_tokens: int, rounds: int) -> Prefixes:
    """Each round has a system's prompt of its own, of so many tokens."""
    measured = [await _round(target, _system_prompt(shared_tokens)) for _ in range(rounds)]
    return Prefixes(*(statistics.median(times) for times in zip(*measured, strict=True)))


async def _round(target: Target, shared: str) -> tuple[float, float, float, float]:
    chat = _chat(shared, "What is a word?")
    cold = await _ask(target, chat)
    repeat = await _ask(target, chat)
    turn = await _ask(target, _next_turn(chat, cold))
    tail = await _ask(target, _chat(shared, "How many of them are there?"))
    return cold.first_s, repeat.first_s, turn.first_s, tail.first_s


async def _ask(target: Target, chat: Sequence[Message]) -> Streamed:
    reply = await target.chat(chat, REPLY_TOKENS)
    if reply.error or not reply.arrivals:
        raise BenchError(f"{target.name} did not answer a chat: {reply.error or 'no text'}")
    return reply


@dataclass(frozen=True, slots=True)
class Restarted:
    """Time to first token in seconds, medians."""

    cold_s: float
    again_s: float
    """The same chats, of a server that was stopped and started again in between."""


def restarted(start: Callable[[], AbstractContextManager[Target]], *, shared_tokens: int, rounds: int) -> Restarted:
    """`start` runs a server that keeps its cache in one folder."""
    chats = [_chat(_system_prompt(shared_tokens), "What is a word?") for _ in range(rounds)]
    lives = []
    for _ in range(2):
        with start() as target:
            lives.append(anyio.run(_median, target, chats))
    return Restarted(*lives)


async def _median(target: Target, chats: Sequence[list[Message]]) -> float:
    return statistics.median([(await _ask(target, chat)).first_s for chat in chats])
