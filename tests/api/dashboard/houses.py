"""Snapshots of houses for the dashboard's tests: busy ones of any size, and arbitrary ones."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from actors.snapshots import (
    DecodeSnapshot,
    DecodingSequence,
    HouseSnapshot,
    MailboxSnapshot,
    MonitorSnapshot,
    PrefillingSequence,
    PrefillSnapshot,
    ProbeSnapshot,
    Tally,
    Trouble,
)
from runtime.engine.host import Vitals
from runtime.types import DivergenceCause, HitType, PressureLevel, RequestId, RuntimeMode
from tests.api.fakes import MEMORY, snapshot

ACTORS = (
    "request_admitter",
    "scheduler",
    "prefill_worker",
    "decode_worker",
    "cache_manager",
    "memory_monitor",
    "divergence_probe",
)
TALLY = Tally(prompts=4, compared_tokens=128, agreement=0.875, first_difference=7, largest_logprob_difference=0.02)


def busy(requests: int = 3, at: float = 0.0, *, running: int = 32, prefilling: int = 2) -> HouseSnapshot:
    """A house with everything in it, `at` seconds after it opened: the first `running` requests produce 10 tokens a
    second each, the next ones are read at 50 tokens a second, the others wait; each actor handles 20 messages a
    second."""
    house = snapshot()
    assert house.admitter
    assert house.scheduler
    ids = [RequestId(f"cmpl-{index:08x}{'0' * 16}-0") for index in range(1, requests + 1)]
    decoding, reading, waiting = ids[:running], ids[running : running + prefilling], ids[running + prefilling :]
    return replace(
        house,
        at=1000.0 + at,
        uptime_s=at,
        mailboxes={name: MailboxSnapshot(2, 256, int(20 * at)) for name in ACTORS},
        admitter=replace(house.admitter, open_requests=tuple(ids), arrived_at=(999.0,) * requests),
        scheduler=replace(
            house.scheduler,
            waiting=tuple(waiting),
            prefilling=tuple(reading),
            decoding=tuple(decoding),
            mode=RuntimeMode.BATCHED,
            step_s=0.0125,
            prefill_s=0.08,
            prefill_tokens=512,
        ),
        prefill=PrefillSnapshot(
            tuple(PrefillingSequence(each, int(50 * at), 4000, 64, HitType.LCP, 100) for each in reading)
        ),
        decode=DecodeSnapshot(
            tuple(DecodingSequence(each, int(10 * at), 2000, 0, 0, HitType.MISS, 0.25, 10.0) for each in decoding),
            int(10 * at) * len(decoding),
        ),
        monitor=MonitorSnapshot(PressureLevel.WARN, MEMORY),
        probe=ProbeSnapshot(3, False, True, 0.95, {DivergenceCause.COMPANY: TALLY}, 1000.0),
        engine=Vitals(4711, "decoding", 0.01, 2),
        troubles=(Trouble(999.0, "warning", "scheduler", "the pace could not be held"),),
    )


def moments(seconds: Iterable[float], requests: int = 3) -> Iterable[HouseSnapshot]:
    return (busy(requests, at) for at in seconds)


def arbitrary(annotation: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that a snapshot is made of, as it could come out of JSON: numbers are finite."""
    if isinstance(annotation, type) and is_dataclass(annotation):
        hints = get_type_hints(annotation)
        parts = {field.name: arbitrary(hints[field.name]) for field in fields(annotation)}
        return st.builds(annotation, **parts)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        return st.one_of([arbitrary(each) for each in arguments])
    if origin is tuple:
        return st.lists(arbitrary(arguments[0]), max_size=4).map(tuple)
    if origin is dict:
        return st.dictionaries(arbitrary(arguments[0]), arbitrary(arguments[1]), max_size=4)
    return _plain(getattr(annotation, "__supertype__", annotation))


def _plain(annotation: Any) -> st.SearchStrategy[Any]:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    return {
        float: st.floats(-1e15, 1e15),
        int: st.integers(-(2**53), 2**53),
        str: st.text(max_size=30),
        bool: st.booleans(),
        NoneType: st.none(),
    }[annotation]


HOUSES: st.SearchStrategy[HouseSnapshot] = arbitrary(HouseSnapshot)
