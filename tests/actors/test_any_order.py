"""Whatever order mail and results come in, and whatever happens meanwhile: everyone gets their own tokens, once."""

from dataclasses import replace
from itertools import count
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import messages as m
from actors.replies import ReplySink
from runtime.types import CacheStrategy, CancelCause, PressureLevel, RequestId, RuntimeMode
from tests.actors.small_house import Plan, SmallHouse
from tests.fakes import FACTS, fake_output

END = 2
"""The stop id that messages in prompts end with."""
MOST_STEPS = 200_000
"""Far more than any of these takes."""


class Play:
    """Random conversations in a small house, with everything that can go wrong there."""

    def __init__(self, seed: int, strategy: CacheStrategy, *, trimmable: bool) -> None:
        self.random = random = Random(seed)
        chunk_tokens = random.choice([0, 0, 64])
        facts = replace(FACTS, trimmable=trimmable, padding_ratio=random.choice([1.0, 2.0, inf]))
        self.house = SmallHouse(
            Plan(
                strategy,
                facts,
                room_tokens=random.choice([600, 1100, 2100, 10_000]),
                keep_tokens=random.choice([0, 300, 1000, 5000]) if trimmable or not chunk_tokens else 0,
                disk_tokens=random.choice([0, 300, 5000]),
                concurrency=random.choice([1, 3, 6]),
                mode=random.choice([RuntimeMode.BATCHED, RuntimeMode.AUTO, RuntimeMode.SIMPLE]),
                chunk_tokens=chunk_tokens,
            ),
            random,
        )
        self.left = 12
        """Requests that are still to come."""
        self.deaths = random.choice([0, 0, 1, 3])
        """Of the engine, likewise."""
        self.names = count()
        self.requests: dict[str, m.Request] = {}
        self.transcripts = [self.ids(random.randint(1, 250)) for _ in range(3)]
        """What conversations begin with."""
        self.asked_to_clear = self.cleared = 0
        self.background_left = random.choice([0, 4, 12])
        self.background: dict[str, int] = {}
        """Requests that nobody waits for, and the life in which they came: they end with it."""

    def ids(self, length: int) -> tuple[int, ...]:
        """A message."""
        return (*(self.random.randint(10, 99) for _ in range(length)), END)

    def admit(self) -> None:
        """One to three requests on top of what was said before, which may be cut off or go on."""
        prompt = self.random.choice(self.transcripts)
        if self.random.random() < 0.3:
            prompt = prompt[: self.random.randint(1, len(prompt))]
        if self.random.random() < 0.6:
            prompt += self.ids(self.random.randint(1, 100))
        requests = tuple(self.request(prompt) for _ in range(min(self.left, self.random.choice([1, 1, 3]))))
        self.left -= len(requests)
        self.house.door.tell(m.Admit(requests))

    def request(self, prompt: tuple[int, ...]) -> m.Request:
        name = f"r{next(self.names)}"
        tokens = self.random.choice([1, 5, 30, 70])
        self.transcripts.append((*prompt, *fake_output(prompt, tokens)))
        request = self.house.client.request(
            name,
            prompt,
            arrived_at=float(len(self.requests)),
            report_every=self.random.choice([1, 4]),
            score_prompt=self.random.choice([None, None, None, 0]),
            max_tokens=tokens,
            stop_ids=frozenset({END}),
        )
        self.requests[name] = replace(request, cache_salt=self.random.choice(["", "", "theirs"]))
        return self.requests[name]

    def probe(self) -> None:
        """Some of the background, together."""
        for _ in range(min(self.background_left, self.random.choice([1, 4]))):
            self.background_left -= 1
            request = self.request(self.random.choice(self.transcripts))
            self.background[request.request_id] = self.house.epoch
            only_last_words = ReplySink(self.house.client.heard.append, capacity=0)
            leaves_kv, apart = self.random.random() < 0.5, self.random.random() < 0.5
            background = replace(
                request, background=True, apart=apart, leaves_kv=leaves_kv, sink=only_last_words, score_prompt=None
            )
            self.requests[request.request_id] = background
            self.house.line.tell(m.Enqueue(self.house.epoch, background, ()))

    def go(self) -> None:
        for _ in range(MOST_STEPS):
            self.interfere()
            if not self.house.step() and not self.left and not self.background_left:
                return
        raise AssertionError("it never comes to an end")

    def interfere(self) -> None:
        """Now and then."""
        chance = self.random.random()
        if chance < 0.01 and self.left:
            self.admit()
        elif chance < 0.013 and self.requests:
            name = self.random.choice(list(self.requests))
            self.house.door.tell(m.Cancel(RequestId(name), CancelCause.CLIENT_LEFT))
        elif chance < 0.0135 and self.background:
            name = self.random.choice(list(self.background))
            self.house.line.tell(m.Cancel(RequestId(name), CancelCause.OPERATOR))
        elif chance < 0.0145 and self.background_left:
            self.probe()
        elif chance < 0.0148:
            self.house.line.tell(m.DivergenceMeasured(self.random.random() < 0.5))
        elif chance < 0.016:
            self.house.cache.tell(m.PressureMeasured(self.random.choice(list(PressureLevel))))
        elif chance < 0.017:
            self.clear()
        elif chance < 0.019 and self.house.disk:
            del self.house.disk[self.random.choice(list(self.house.disk))]
        elif chance < 0.021 and self.deaths:
            self.deaths -= 1
            self.asked_to_clear = self.cleared
            self.house.die()

    def clear(self) -> None:
        def cleared() -> None:
            self.cleared += 1

        self.asked_to_clear += 1
        self.house.cache.tell(m.ClearCache(cleared))

    def check_answers(self) -> None:
        """Exactly one last word each; all tokens, or as many as there were by then."""
        for name, request in self.requests.items():
            heard = [reply for reply in self.house.client.heard if reply.request_id == name]
            if self.background.get(name, self.house.epoch) != self.house.epoch and not request.sink.ended:
                continue
            (word,) = [reply for reply in heard if isinstance(reply, m.LastWord)]
            assert word is heard[-1]
            tokens = [t.token_id for r in heard if isinstance(r, m.TokensDecoded | m.Finished) for t in r.tokens]
            expected = fake_output(request.prompt_ids, request.sampling.max_tokens)
            if isinstance(word, m.Finished):
                assert tokens == expected
                assert word.usage.completion_tokens == len(expected)
                told = [reply for reply in heard if isinstance(reply, m.PromptScored)]
                assert len(told) == (request.score_prompt is not None)
            else:
                assert isinstance(word, m.Cancelled | m.Failed)
                assert tokens == expected[: len(tokens)]

    def check_that_nothing_is_left(self) -> None:
        """The books agree with the engine, and whoever left holds nothing."""
        house = self.house
        shown, line = house.cache_manager.snapshot(), house.scheduler.snapshot()
        assert (shown.leases, shown.leased_bytes) == (0, 0)
        assert (line.waiting, line.prefilling, line.decoding, line.turns_under_way) == ((), (), (), ())
        assert line.background == ()
        assert (house.fake.rows, house.fake.caches, house.fake.finished) == ({}, {}, {})
        assert all(map(house.prefixes.memory.holds, house.fake.stored))
        assert shown.pieces == len(house.fake.stored)
        assert shown.stored_bytes == sum(len(piece.token_ids) * 10 for piece in house.fake.stored.values())
        assert all(map(house.prefixes.disk.holds, house.disk or {}))
        assert self.cleared == self.asked_to_clear
        assert not house.admitter.snapshot().open_requests


@pytest.mark.parametrize(
    ("strategy", "trimmable"),
    [
        (CacheStrategy.PAGED, True),
        (CacheStrategy.MEMORY_AWARE, True),
        (CacheStrategy.LEGACY, True),
        (CacheStrategy.MEMORY_AWARE, False),
        (CacheStrategy.LEGACY, False),
    ],
)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_everyone_gets_their_own_tokens_in_whatever_order(seed: int, strategy: CacheStrategy, trimmable: bool) -> None:
    play = Play(seed, strategy, trimmable=trimmable)
    play.go()
    play.check_answers()
    play.check_that_nothing_is_left()
