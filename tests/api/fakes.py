"""A front desk that plays scripts, and a real HTTP server on a loopback port to put it behind."""

import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio
import hypercorn.asyncio
import hypercorn.trio
from quart import Quart
from quart_trio import QuartTrio
from tokenizers import Tokenizer

from actors import messages as m
from actors.desk import FrontDesk
from actors.snapshots import (
    AdmitterSnapshot,
    CacheSnapshot,
    DecodeSnapshot,
    DecodingSequence,
    HouseSnapshot,
    MailboxSnapshot,
    MonitorSnapshot,
    PrefillingSequence,
    PrefillSnapshot,
    ProbeSnapshot,
    RoomState,
    SchedulerSnapshot,
    Tally,
    Trouble,
)
from api.app import create_app
from api.context import ApiContext
from api.server import http_config
from api.text.codec import HfCodec
from runtime.engine.host import Vitals
from runtime.settings import Settings
from runtime.types import (
    CacheStrategy,
    CancelCause,
    DivergenceCause,
    FinishReason,
    HitType,
    MemoryUsage,
    ModelFacts,
    PressureLevel,
    RequestId,
    TokenOutput,
)
from tests.fakes import FACTS
from tests.tiny import VOCAB, make_tokenizer

API_FACTS = replace(FACTS, context_tokens=256, declared_context_tokens=256, vocab_size=VOCAB)
END_ID = 2
"""<|im_end|>, the id that ends a sequence."""

Script = Callable[[m.Request], Iterable[m.Reply]]
"""What the house says to a request after it was accepted; without a last word it goes on for ever."""

TOKENIZER: Tokenizer = make_tokenizer()


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


def says(*texts: str, reason: FinishReason = FinishReason.STOP, cached_tokens: int = 0) -> Script:
    """Answers choice number i with the i-th text, the last of them for all that follow, token by token."""

    def script(request: m.Request) -> Iterable[m.Reply]:
        choice = int(request.request_id.rpartition("-")[2])
        ids = ids_of(texts[min(choice, len(texts) - 1)]) + ([END_ID] if reason is FinishReason.STOP else [])
        tokens = [_output(token_id, request) for token_id in ids]
        while len(tokens) > request.report_every:
            yield m.TokensDecoded(request.request_id, tuple(tokens[: request.report_every]))
            tokens = tokens[request.report_every :]
        usage = m.Usage(len(request.prompt_ids), cached_tokens, len(ids))
        yield m.Finished(request.request_id, tuple(tokens), reason, usage)

    return script


def begins(text: str) -> Script:
    """Says `text`, and then goes on for ever without another word."""

    def script(request: m.Request) -> Iterable[m.Reply]:
        yield m.TokensDecoded(request.request_id, tuple(_output(token_id, request) for token_id in ids_of(text)))

    return script


def ends_with(last_word: Callable[[RequestId], m.LastWord], text: str = "") -> Script:
    """Says `text`, then `last_word`."""

    def script(request: m.Request) -> Iterable[m.Reply]:
        yield from begins(text)(request)
        yield last_word(request.request_id)

    return script


def cancelled_by(cause: CancelCause) -> Callable[[RequestId], m.LastWord]:
    return lambda request_id: m.Cancelled(request_id, cause, m.Usage(1, 0, 1))


def _output(token_id: int, request: m.Request) -> TokenOutput:
    """Log-probabilities as the engine would give them: the chosen token is the likeliest, its neighbours follow."""
    wanted = request.sampling.top_logprobs
    if wanted is None:
        return TokenOutput(token_id)
    return TokenOutput(token_id, -0.25, tuple((token_id + i, -0.25 - i) for i in range(wanted)))


def prompt_scores(request: m.Request) -> tuple[TokenOutput, ...]:
    """The first id without a score; each one after it is less likely than the last, and its neighbour more likely."""
    first, *others = request.prompt_ids
    top = range(1, 1 + (request.score_prompt or 0))
    scored = [TokenOutput(id, -float(i), tuple((id + k, -k / 8) for k in top)) for i, id in enumerate(others, start=1)]
    return (TokenOutput(first), *scored)


@dataclass
class FakeDesk:
    """Keeps the promises of FrontDesk: accepts all or none, answers by its script, and says one last word each."""

    script: Script = field(default_factory=lambda: says("Hello world."))
    refusal: Callable[[RequestId], m.Rejected] | None = None
    model_facts: ModelFacts | None = API_FACTS
    house: HouseSnapshot | None = None
    admitted: list[m.Request] = field(default_factory=list)
    cancelled: list[tuple[RequestId, CancelCause]] = field(default_factory=list)
    clearings: list[Callable[[], None]] = field(default_factory=list)
    """Whom to tell that the cache is cleared: a test does."""
    changed: anyio.Event = field(default_factory=anyio.Event)

    def now(self) -> float:
        return 1000.0

    def facts(self) -> ModelFacts | None:
        return self.model_facts

    def admit(self, requests: tuple[m.Request, ...]) -> None:
        for request in requests:
            if self.refusal:
                request.sink.last_word(self.refusal(request.request_id))
            else:
                request.sink.offer(m.Accepted(request.request_id))
        if not self.refusal:
            self.admitted += requests
            for request in requests:
                self._play(request)
        self._announce()

    def _play(self, request: m.Request) -> None:
        if request.to_score:
            request.sink.prompt_scored(m.PromptScored(request.request_id, prompt_scores(request)))
        if request.sampling.max_tokens == 0:
            usage = m.Usage(len(request.prompt_ids), 0, 0)
            request.sink.last_word(m.Finished(request.request_id, (), FinishReason.LENGTH, usage))
            return
        for reply in self.script(request):
            if isinstance(reply, m.LastWord):
                request.sink.last_word(reply)
            else:
                assert request.sink.offer(reply), "the script is longer than the way back"

    def cancel(self, request_id: RequestId, cause: CancelCause) -> None:
        self.cancelled.append((request_id, cause))
        for request in self.admitted:
            if request.request_id == request_id and not request.sink.ended:
                usage = m.Usage(len(request.prompt_ids), 0, len(request.sink.delivered))
                request.sink.last_word(m.Cancelled(request_id, cause, usage))
        self._announce()

    def clear_cache(self, cleared: Callable[[], None]) -> None:
        self.clearings.append(cleared)
        self._announce()

    def snapshot(self) -> HouseSnapshot:
        return self.house or snapshot()

    def _announce(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def until(self, condition: Callable[["FakeDesk"], object]) -> None:
        """Wait until requests, cancellations and clearings are such that `condition` holds."""
        with anyio.fail_after(10):
            while not condition(self):
                await self.changed.wait()

    @property
    def causes(self) -> list[CancelCause]:
        return [cause for _, cause in self.cancelled]


MEMORY = MemoryUsage(
    active_bytes=2 * 10**9,
    peak_bytes=3 * 10**9,
    cache_bytes=10**9,
    resident_bytes=4 * 10**9,
    system_total_bytes=16 * 10**9,
    system_used_fraction=0.5,
)
CACHE = CacheSnapshot(
    strategy=CacheStrategy.PAGED,
    budget_bytes=1 << 30,
    leased_bytes=1 << 20,
    stored_bytes=3 << 20,
    leases=2,
    entries=4,
    pieces=9,
    hits={HitType.EXACT: 2, HitType.LCP: 1, HitType.MISS: 9},
    evictions=5,
    disk_bytes=6 << 20,
    disk_entries=7,
)


PROBE = ProbeSnapshot(
    rounds=3,
    under_way=False,
    diverged=True,
    threshold=0.95,
    tallies={
        DivergenceCause.COMPANY: Tally(8, 256, 0.75, 4, 0.125),
        DivergenceCause.CACHE: Tally(4, 128, 1.0, None, 0),
    },
    ended_at=3.0,
    given_up=1,
)
VITALS = Vitals(pid=77, doing="Decode", silent_s=0.25, under_way=2)
TROUBLE = Trouble(at=1.5, level="warning", who="scheduler", text="something is not as it should be")


def snapshot(room: RoomState = RoomState.READY, *, draining: bool = False) -> HouseSnapshot:
    """A house with three requests: `a` waits, `b` is in prefill, `c` produces tokens."""
    a, b, c = RequestId("a"), RequestId("b"), RequestId("c")
    return HouseSnapshot(
        at=5.0,
        uptime_s=4.5,
        room=room,
        restarts={"engine_room": 1},
        facts=API_FACTS,
        mailboxes={"scheduler": MailboxSnapshot(depth=0, capacity=10, handled=7)},
        admitter=AdmitterSnapshot((a, b, c), 132, draining, PressureLevel.NORMAL, 9, 100, 50, 6, 1, (1.0, 2.0, 4.5)),
        scheduler=SchedulerSnapshot((a,), (b,), (c,), ("decode",), 3, 32, None, 40, 2),
        prefill=PrefillSnapshot((PrefillingSequence(b, 25, 100, 10, HitType.PREFIX, 64),)),
        decode=DecodeSnapshot((DecodingSequence(c, 16, 64, 0, 0, HitType.MISS, 0.25, 12.5),)),
        cache=CACHE,
        monitor=MonitorSnapshot(PressureLevel.NORMAL, MEMORY),
        steps_executed=40,
    )


def make_app(desk: FrontDesk, codec: HfCodec, backend: str, **settings: object) -> Quart:
    context = ApiContext(
        settings=Settings.model_validate(settings, by_name=True),
        desk=desk,
        codec=codec,
        model_id="tiny/llama",
        created=1_700_000_000,
    )
    return create_app(context, app_class=QuartTrio if backend == "trio" else Quart)


@asynccontextmanager
async def served(app: Quart, *, header_s: float = 5.0, port: int = 0, closing_s: float = 1.0) -> AsyncIterator[int]:
    """Serve `app` with Hypercorn, set up as the server sets it up, on a loopback port; gives the port (0 picks one).
    In the end streams have `closing_s` to end by themselves."""
    listener = socket.create_server(("127.0.0.1", port))
    port = int(listener.getsockname()[1])
    config = http_config(listener)
    config.graceful_timeout = closing_s
    config.keep_alive_timeout = header_s
    listener.detach()
    stop = anyio.Event()

    async def until_stopped() -> None:
        await stop.wait()

    worker = hypercorn.trio.serve if isinstance(app, QuartTrio) else hypercorn.asyncio.serve
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: worker(app, config, shutdown_trigger=until_stopped))
        yield port
        stop.set()


CHAT: dict[str, object] = {"model": "default", "messages": [{"role": "user", "content": "Hi there"}]}
PROMPT: dict[str, object] = {"model": "default", "prompt": "Once upon"}


def events(body: bytes) -> Sequence[bytes]:
    """The data of every server-sent event in `body`."""
    return [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line.startswith(b"data: ")]
