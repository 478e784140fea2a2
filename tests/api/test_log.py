"""What the log says of calls: where a line belongs, how long each phase took, never what was asked or answered."""

import io
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import orjson
import pytest
from jinja2 import TemplateError
from quart import Quart

from actors import messages as m
from api.text.codec import HfCodec
from api.times import Times
from runtime.log import JsonLines, TextLines
from runtime.types import CancelCause, FinishReason, RejectReason, RequestId, TokenOutput
from tests.api.calling import call
from tests.api.fakes import CHAT, FakeDesk, begins, cancelled_by, ends_with, make_app, says

pytestmark = pytest.mark.anyio

CHAT_ROUTE = "/v1/chat/completions"
SECRET = "xyzzy-plugh"
KEY = "s3cret-k3y"
TOLD: dict[str, object] = {"model": "default", "messages": [{"role": "user", "content": SECRET}]}


@contextmanager
def written(formatter: type[logging.Formatter]) -> Iterator[io.StringIO]:
    """Whatever is logged meanwhile, by whom it may be, as it would be written."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(formatter())
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.DEBUG)
    try:
        yield text
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def lines(text: io.StringIO, logger: str = "troupe.access") -> list[dict[str, object]]:
    every = [orjson.loads(line) for line in text.getvalue().splitlines()]
    return [line for line in every if line["logger"] == logger]


def staged(request: m.Request) -> Iterable[m.Reply]:
    """A whole life, with nine tokens of the prompt found in the cache."""
    yield m.Staged(request.request_id, 9)
    yield m.PrefillAdvanced(request.request_id, 1, 2)
    yield from says("Hello world.", cached_tokens=9)(request)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_line_of_json_has_all_that_is_known_of_its_call(app: Quart, desk: FakeDesk, stream: bool) -> None:
    desk.script = staged
    with written(JsonLines) as text:
        reply = await call(app, "POST", CHAT_ROUTE, CHAT | {"stream": stream})
    (line,) = lines(text)
    assert line["request_id"] == reply.headers["x-request-id"]
    assert [line[name] for name in ("method", "path", "route", "status")] == ["POST", CHAT_ROUTE, CHAT_ROUTE, 200]
    assert (line["prompt_tokens"], line["cached_tokens"]) == (len(desk.admitted[0].prompt_ids), 9)
    phases = [line[f"{phase}_s"] for phase in ("queue", "prefill", "decode")]
    assert all(isinstance(seconds, float) and seconds >= 0 for seconds in phases)
    assert sum(phases) <= line["duration_s"]  # type: ignore[operator, arg-type]
    assert 0 < line["first_byte_s"] <= line["duration_s"]  # type: ignore[operator]


async def test_a_call_that_asks_for_no_tokens_has_no_counts(app: Quart) -> None:
    with written(JsonLines) as text:
        await call(app, "GET", "/health")
    (line,) = lines(text)
    assert {"time", "level", "logger", "message", "request_id", "duration_s", "first_byte_s"} < set(line)
    assert not set(line) & {"prompt_tokens", "queue_s", "error"}


async def test_a_line_of_text_comes_of_the_same_record(app: Quart, desk: FakeDesk) -> None:
    desk.script = staged
    with written(TextLines) as text:
        reply = await call(app, "POST", CHAT_ROUTE, CHAT)
    (line,) = text.getvalue().splitlines()
    assert line.count(reply.headers["x-request-id"]) == 1
    assert all(f" {phase}=0." in line for phase in ("first", "queue", "prefill", "decode"))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_line_says_what_the_reply_failed_of(app: Quart, desk: FakeDesk, stream: bool) -> None:
    """The status of a stream is sent before it fails."""
    desk.script = ends_with(cancelled_by(CancelCause.DEADLINE), "Hello")
    with written(JsonLines) as text:
        await call(app, "POST", CHAT_ROUTE, CHAT | {"stream": stream})
    (line,) = lines(text)
    assert (line["status"], line["error"]) == (200 if stream else 504, "deadline")


async def test_what_is_logged_while_a_call_is_handled_names_it(
    app: Quart, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_request: m.Request) -> list[m.Reply]:
        raise RuntimeError

    desk.script = broken
    with written(JsonLines) as text:
        reply = await call(app, "POST", CHAT_ROUTE, CHAT)
    (line,) = lines(text, "troupe.api")
    assert line["request_id"] == reply.headers["x-request-id"]
    assert line["exception"] == "RuntimeError"


async def test_an_engine_that_fails_a_request_is_told_with_it(app: Quart, desk: FakeDesk) -> None:
    desk.script = ends_with(lambda request_id: m.Failed(request_id, "RuntimeError: out of\nbuffers"))
    with written(TextLines) as text:
        reply = await call(app, "POST", CHAT_ROUTE, CHAT)
    call_id = reply.headers["x-request-id"]
    failed, access = text.getvalue().splitlines()
    assert f"troupe.exchange: chatcmpl-{call_id}-0 failed: RuntimeError: out of\\u000abuffers" in failed
    assert access.endswith("error=engine_failed")


def breaks(_self: object, _tokens: object) -> None:
    raise KeyError(SECRET)


def refuses(*_: object, **__: object) -> None:
    raise TemplateError(SECRET)


BAD: dict[str, object] = {
    "a bad body": TOLD | {"temperature": SECRET},
    "an unknown field": TOLD | {SECRET: 1},
    "not JSON": f'{{"{SECRET}'.encode(),
    "an unknown role": TOLD | {"messages": [{"role": SECRET, "content": SECRET}]},
    "a name of a model": TOLD | {"model": SECRET},
    "a bad schema": TOLD
    | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"pattern": f"({SECRET}"}}}},
    "a long prompt": TOLD | {"messages": [{"role": "user", "content": SECRET * 500}]},
    "half a surrogate pair": b'{"model": "default", "messages": [{"role": "user", "content": "%s \\ud800"}]}'
    % SECRET.encode(),
    "a tool": TOLD | {"tools": [{"type": "function", "function": {"name": SECRET}}]},
}


@pytest.mark.parametrize("formatter", [TextLines, JsonLines])
@pytest.mark.parametrize("stream", [True, False])
async def test_no_content_and_no_key_is_in_the_log_whatever_fails(
    desk: FakeDesk,
    fresh_codec: HfCodec,
    anyio_backend: str,
    stream: bool,
    formatter: type[logging.Formatter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, api_key=KEY)
    scripts: list[Callable[[m.Request], Iterable[m.Reply]]] = [
        says(SECRET),
        ends_with(lambda request_id: m.Failed(request_id, "the engine raised"), SECRET),
        ends_with(cancelled_by(CancelCause.DEADLINE), SECRET),
        lambda _request: (_ for _ in ()).throw(ValueError(SECRET)),
    ]
    headers = {"Authorization": f"Bearer {KEY}", "traceparent": SECRET}
    with written(formatter) as text:
        for body in BAD.values():
            sent = body if isinstance(body, bytes) else {**body, "stream": stream}  # type: ignore[dict-item]
            await call(app, "POST", CHAT_ROUTE, sent, headers=headers)
        for desk.script in scripts:
            await call(app, "POST", CHAT_ROUTE, TOLD | {"stream": stream}, headers=headers)
        desk.script = begins(SECRET)
        for where, fault in (
            ("api.text.choice.ChoiceText.feed", breaks),
            ("api.text.codec.HfCodec.chat_prompt", refuses),
        ):
            with monkeypatch.context() as patched:
                patched.setattr(where, fault)
                await call(app, "POST", CHAT_ROUTE, TOLD | {"stream": stream}, headers=headers)
        await call(app, "POST", CHAT_ROUTE, TOLD, headers={"Authorization": f"Bearer {SECRET}"})
    assert SECRET not in text.getvalue()
    assert KEY not in text.getvalue()
    assert "KeyError" in text.getvalue()
    assert "TemplateError" in text.getvalue()
    assert text.getvalue().count("troupe.access") == len(BAD) + len(scripts) + 3


async def test_a_path_cannot_forge_a_line_in_either_format(app: Quart) -> None:
    for formatter in (TextLines, JsonLines):
        with written(formatter) as text:
            await call(app, "GET", "/x\r\nforged\u2028forged\x1b[2K\u202e")
        (line,) = text.getvalue().removesuffix("\n").splitlines()
        assert line.isprintable()
    assert orjson.loads(line)["path"] == "/x\r\nforged\u2028forged\x1b[2K\u202e"


# --- the times of one request ---

ID = RequestId("r")
USAGE = m.Usage(1, 0, 0)


def noted(*replies: m.Reply) -> list[str]:
    times = Times(prompt_tokens=8)
    for reply in replies:
        times.note(reply)
    times.left()
    phases = list(times.phases())
    for one, next_one in pairwise(phases):
        assert one.ended_at == next_one.began_at
    assert all(phase.seconds >= 0 for phase in phases)
    return [phase.name for phase in phases]


TOKENS = m.TokensDecoded(ID, (TokenOutput(5),))


@pytest.mark.parametrize(
    ("replies", "phases"),
    [
        ([], []),
        ([m.Rejected(ID, RejectReason.QUEUE_FULL, 1)], []),
        ([m.Accepted(ID)], ["queue"]),
        ([m.Accepted(ID), m.Cancelled(ID, CancelCause.DEADLINE, USAGE)], ["queue"]),
        ([m.Accepted(ID), m.Staged(ID, 0)], ["queue", "prefill"]),
        ([m.Accepted(ID), m.Staged(ID, 0), m.Failed(ID, "")], ["queue", "prefill"]),
        ([m.Accepted(ID), m.Staged(ID, 0), m.PrefillAdvanced(ID, 6, 7)], ["queue", "prefill"]),
        ([m.Accepted(ID), m.Staged(ID, 0), m.PrefillAdvanced(ID, 7, 7)], ["queue", "prefill", "decode"]),
        ([m.Accepted(ID), m.Staged(ID, 7)], ["queue", "prefill", "decode"]),
        ([m.Accepted(ID), m.Staged(ID, 0), TOKENS], ["queue", "prefill", "decode"]),
        ([m.Accepted(ID), m.Staged(ID, 0), TOKENS, m.Staged(ID, 0), TOKENS], ["queue", "prefill", "decode"]),
        ([m.Accepted(ID), m.Staged(ID, 0), m.Finished(ID, (), FinishReason.LENGTH, USAGE)], ["queue", "prefill"]),
        ([m.Accepted(ID), TOKENS], ["decode"]),
    ],
)
def test_a_request_went_through_these_phases(replies: list[m.Reply], phases: list[str]) -> None:
    assert noted(*replies) == phases


def test_a_second_run_changes_neither_when_it_was_staged_nor_what_was_cached() -> None:
    times = Times(prompt_tokens=9)
    for reply in (m.Accepted(ID), m.Staged(ID, 7)):
        times.note(reply)
    first = times.staged_at
    times.note(m.Staged(ID, 0))
    assert (times.staged_at, times.cached_tokens, times.runs) == (first, 7, 2)


def test_a_request_that_goes_on_has_no_phases_yet() -> None:
    times = Times(prompt_tokens=9)
    times.note(m.Accepted(ID))
    assert list(times.phases()) == []
