"""A CacheManager between recording neighbours and an engine that works when a test says so."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count

from actors import messages as m
from actors.cache_manager import CacheManager
from actors.policies.budget import KvBudget
from actors.policies.prefix_cache import PrefixCache
from runtime.engine import commands as c
from runtime.types import CacheStrategy, KvCheckpoint, KvPiece, RequestId, SequenceId
from tests.actors.slow_engine import SlowEngine
from tests.fakes import FACTS, Client, FakeEngine, Recorder

BYTES = FACTS.kv_bytes_per_token
END = 2
"""The stop id that ends messages."""


class Keeping:
    """Ten bytes a token; room for 4096 tokens, 2000 of them for kept prefixes. A short sequence takes 256."""

    def __init__(
        self,
        *,
        room_tokens: int = 4096,
        keep_tokens: int = 2000,
        disk_tokens: int = 0,
        disk: Iterable[KvPiece] | None = None,
        strategy: CacheStrategy = CacheStrategy.PAGED,
        trimmable: bool = True,
    ) -> None:
        """`disk`: what an earlier life left there."""
        facts = replace(FACTS, trimmable=trimmable)
        on_disk = {piece.handle: piece for piece in disk or ()}
        self.engine = SlowEngine(FakeEngine(facts, disk=on_disk if disk_tokens else None))
        self.scheduler = Recorder[m.KvLeased | m.KvRefused | m.KvOverdrawn]()
        self.prefill = Recorder[m.PrefixFound | m.CheckpointHandled]()
        self.client = Client()
        self._sequence_ids = count(1)
        self.sequences: dict[str, SequenceId] = {}
        self.actor = CacheManager(
            engine=self.engine,
            reply=self.reply,
            scheduler=self.scheduler,
            prefill_worker=self.prefill,
            facts=facts,
            budget=KvBudget(room_tokens * BYTES, keep_tokens * BYTES, FACTS.context_tokens),
            prefixes=PrefixCache(
                strategy=strategy,
                trimmable=trimmable,
                bytes_per_token=BYTES,
                memory_bytes=keep_tokens * BYTES,
                disk_bytes=disk_tokens * BYTES,
            ),
            listing=disk is not None,
        )
        if disk is not None:
            self.engine.submit(c.ListKv(), self.reply)

    def reply(self, result: c.Result, at: float) -> None:
        self.actor.receive(m.EngineReplied(result, at))

    def ask(
        self,
        name: str,
        history: Sequence[int],
        *,
        salt: str = "",
        score_prompt: int | None = None,
        again: bool = False,
        leaves_kv: bool = True,
    ) -> None:
        """Ask for a lease."""
        request = self.client.request(name, history, score_prompt=score_prompt, stop_ids=frozenset({END}))
        request = replace(request, cache_salt=salt, leaves_kv=leaves_kv)
        self.sequences[name] = SequenceId(next(self._sequence_ids))
        word = m.LeaseKv(request, self.sequences[name], tuple(history), again)
        self.actor.receive(word)

    def lease(self, name: str, history: Sequence[int], *, salt: str = "") -> m.KvLeased:
        """Ask for one that is granted at once."""
        self.ask(name, history, salt=salt)
        (answer,) = self.scheduler.take()
        assert isinstance(answer, m.KvLeased)
        return answer

    def compute(self, name: str, held: Sequence[int]) -> None:
        """The engine has come to hold so much of a sequence."""
        self.engine.fake.caches[self.sequences[name]] = list(held)

    def release(self, name: str, held: Sequence[int] = ()) -> None:
        """The sequence leaves; the engine holds these ids of it."""
        self.compute(name, held)
        self.actor.receive(m.ReleaseKv(RequestId(name), self.sequences[name], tuple(held)))

    def keep(self, ids: Sequence[int], *, salt: str = "") -> None:
        """A sequence that was computed from the first id on comes and goes, and this is kept of it."""
        self.ask("keeper", [*ids, 1], salt=salt, score_prompt=0)
        self.engine.catch_up()
        self.scheduler.take()
        self.release("keeper", ids)
        self.engine.catch_up()
        self.engine.take()

    def found(self) -> list[m.PrefixFound]:
        """Who was told that more is kept of their prompt, since last asked."""
        return [word for word in self.prefill.take() if isinstance(word, m.PrefixFound)]

    def reach(self, name: str, history: Sequence[int], checkpoint: KvCheckpoint) -> None:
        """PrefillWorker has brought a sequence to its checkpoint, and wants it stored."""
        self.compute(name, history[: checkpoint.tokens])
        self.engine.submit(c.StoreKv(self.sequences[name], checkpoint.pieces), self.reply)
