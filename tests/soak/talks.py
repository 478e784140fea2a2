"""Random conversations of one client, as token ids: next turns, repeats, edits, forks, beginnings, salts, leaving."""

import itertools
import random
from dataclasses import dataclass

from tests.soak.asking import FIRST_TEXT_ID, Ids
from tests.tiny import VOCAB

Talk = tuple[Ids, ...]
"""Its messages, the last one the user's."""

START, END = 1, 2
"""The special tokens around a message."""
ASKING = (START, 300, 10)
"""What a prompt ends with, and every reply begins with: START, a role, a line break. Which ids these are is the same
to a model of random weights."""
LONGEST = 500
"""Prompt tokens beyond which a conversation is given up."""
SALTS, SALT_WEIGHTS = ("", "one", "two"), (8, 1, 1)


def words(chance: random.Random, tokens: int) -> Ids:
    """So many ids of tokens that are text."""
    return tuple(chance.randrange(FIRST_TEXT_ID, VOCAB) for _ in range(tokens))


def message(chance: random.Random, tokens: int) -> Ids:
    """A message of a user, or of the system."""
    return (START, *words(chance, tokens), END)


def prompt_of(talk: Talk) -> Ids:
    return (*itertools.chain.from_iterable(talk), *ASKING)


def next_turn(talk: Talk, reply: Ids, asked: Ids) -> Talk:
    """The talk, the reply to it, and another message."""
    return (*talk, (*ASKING, *reply, END), asked)


SYSTEMS = tuple(
    (START, *words(random.Random(beginning), 60), *words(random.Random(tokens), tokens), END)
    for tokens in (0, 90, 270)
    for beginning in (1, 2)
)
"""Prompts of the system that all clients share: shorter than a block of 64 tokens, and of several ones and a rest. Two
at a time differ in their first block only, so that the same ids stand in the same places behind another beginning."""
COMMON = tuple(message(random.Random(f"common {number}"), 5 * number) for number in range(1, 9))
"""Messages that everybody sends."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One request."""

    prompt: Ids
    max_tokens: int
    salt: str
    leave_after: int | None
    talk: Talk = ()
    """Where it comes from; empty of what is no conversation."""


class Talker:
    """One client: all its choices are functions of `seed`, and of the replies it hears."""

    def __init__(self, seed: str, most_tokens: int) -> None:
        self._chance = random.Random(seed)
        self._most_tokens = most_tokens
        self._talks: list[Talk] = []
        """All that were asked, the latest last."""
        self._reply: Ids = ()
        """To the last of them."""

    def wish(self) -> Wish:
        ways = (self._new, self._next, self._same, self._edited, self._forked)
        talk = self._chance.choices(ways, (2, 4, 2, 2, 2))[0]() if self._talks else self._new()
        if len(prompt_of(talk)) > LONGEST:
            talk = self._new()
        prompt = prompt_of(talk)
        if self._chance.random() < 0.1:
            prompt, talk = prompt[: self._chance.randint(1, len(prompt))], ()
        max_tokens = self._chance.choice((1, self._most_tokens // 2, self._most_tokens))
        leaves = self._chance.random() < 0.15
        return Wish(
            prompt=prompt,
            max_tokens=max_tokens,
            salt=self._chance.choices(SALTS, SALT_WEIGHTS)[0],
            leave_after=self._chance.randint(0, max_tokens) if leaves else None,
            talk=talk,
        )

    def hear(self, wish: Wish, reply: Ids) -> None:
        """The reply to a wish, or as much as is to be gone on from."""
        if wish.talk:
            self._talks.append(wish.talk)
            self._reply = reply

    def _message(self) -> Ids:
        own = message(self._chance, self._chance.randint(1, 40))
        return self._chance.choice((own, self._chance.choice(COMMON)))

    def _new(self) -> Talk:
        return (self._chance.choice(SYSTEMS), self._message())

    def _next(self) -> Talk:
        return next_turn(self._talks[-1], self._reply, self._message())

    def _same(self) -> Talk:
        return self._chance.choice(self._talks[-4:])

    def _edited(self) -> Talk:
        *kept, last = self._talks[-1]
        return (*kept, (*last[: self._chance.randrange(1, len(last))], *self._message()[1:]))

    def _forked(self) -> Talk:
        """Some earlier talk, cut behind a message of the system or a reply."""
        talk = self._chance.choice(self._talks)
        return (*talk[: self._chance.randrange(1, len(talk), 2)], self._message())
