"""Each of the five checks is made to fail by its cause, and is content where there is none: tables of facts."""

import json
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

from actors.snapshots import MonitorSnapshot, ProbeSnapshot, SchedulerSnapshot, Tally
from api.health.check import Check, CheckStatus, worst
from api.health.dtype import dtype_check
from api.health.installed import Surroundings, extras, extras_installed, requirements, surroundings
from api.health.invariance import invariance_check
from api.health.memory import memory_check
from api.health.papers import ModelPapers, read_papers
from api.health.stops import stops_check
from api.health.versions import versions_check
from api.text.turn_ends import TurnEnds
from runtime.settings import Settings
from runtime.types import DivergenceCause, MemoryUsage, PressureLevel, RuntimeMode
from tests.fakes import FACTS
from tests.tiny import make_tiny_llama

OK, WARNING, ERROR, UNKNOWN = CheckStatus.OK, CheckStatus.WARNING, CheckStatus.ERROR, CheckStatus.UNKNOWN


def test_what_nobody_looked_at_makes_nothing_worse() -> None:
    assert worst([OK, UNKNOWN]) is OK
    assert worst([UNKNOWN, WARNING, OK]) is WARNING
    assert worst([WARNING, ERROR, OK]) is ERROR
    assert worst([UNKNOWN]) is UNKNOWN


# --- dtype ---


@pytest.mark.parametrize(
    ("device", "computed", "asked", "declared", "stored", "status", "said", "mend"),
    [
        ("cpu", "float32", "auto", "bfloat16", "bfloat16", OK, "loses nothing", None),
        ("cpu", "float32", "float32", None, "float32", OK, "on the CPU", None),
        ("metal", "bfloat16", "auto", "bfloat16", "bfloat16", OK, "GPU (Metal)", None),
        ("cuda", "float16", "auto", "float16", "float16", OK, "GPU (CUDA)", None),
        ("cpu", "float16", "float16", "float16", "float16", WARNING, "45 times slower", "--dtype float32"),
        ("cpu", "bfloat16", "bfloat16", "bfloat16", "bfloat16", WARNING, "28 times slower", "--dtype float32"),
        ("metal", "float16", "float16", "bfloat16", "float16", WARNING, "overflows", "--dtype bfloat16"),
        ("metal", "float16", "float16", None, "bfloat16", WARNING, "overflows", "--dtype bfloat16"),
        ("cpu", "float16", "float16", "bfloat16", "bfloat16", WARNING, "made for bfloat16", "--dtype float32"),
        ("metal", "bfloat16", "bfloat16", None, "float32", WARNING, "24 significant bits to 8", "--dtype float32"),
        ("metal", "bfloat16", "bfloat16", "float16", "float16", WARNING, "11 significant bits to 8", "--dtype float16"),
        ("metal", "float16", "bfloat16", None, None, WARNING, "engine computes in float16", "--dtype auto"),
        ("metal", "float8", "auto", None, None, UNKNOWN, "float8", None),
    ],
)
def test_a_type_that_does_not_suit_is_told_with_the_flag_that_does(
    device: str,
    computed: str,
    asked: str,
    declared: str | None,
    stored: str | None,
    status: CheckStatus,
    said: str,
    mend: str | None,
) -> None:
    facts = replace(FACTS, device=device, dtype=computed)
    papers = ModelPapers(declared_dtype=declared, stored={stored: 9} if stored else {})
    check = dtype_check(asked, facts, papers)
    assert check.status is status
    assert said in check.detail
    assert (check.mend or "").startswith(mend or "")
    assert (check.mend is None) == (mend is None)


def test_a_model_that_still_loads_computes_in_nothing_yet() -> None:
    assert dtype_check("auto", None, ModelPapers()).status is UNKNOWN


def test_the_papers_are_what_lies_on_disk(tmp_path: Path) -> None:
    path = make_tiny_llama(tmp_path)
    plain = read_papers(path)
    assert (plain.stored_dtype, plain.declared_dtype, plain.quantised_bits) == ("float32", None, None)
    assert plain.bytes == 4 * plain.elements > 0
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))
    assert read_papers(path).declared_dtype == "bfloat16"
    (path / "config.json").write_text(json.dumps(config | {"text_config": {"dtype": "torch.float16"}}))
    assert read_papers(path).declared_dtype == "float16"


def test_quantised_weights_count_as_what_they_stand_for(tmp_path: Path) -> None:
    words, scales, biases = mx.quantize(mx.ones((64, 128)), group_size=32, bits=4)
    own, own_scales, own_biases = mx.quantize(mx.ones((8, 64)), group_size=32, bits=8)
    tensors = {"a.weight": words, "a.scales": scales, "a.biases": biases, "norm.weight": mx.ones((5,), mx.bfloat16)}
    tensors |= {"b.weight": own, "b.scales": own_scales, "b.biases": own_biases}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors)
    (tmp_path / "config.json").write_text('{"quantization": {"bits": 4, "b": {"bits": 8}}}')
    papers = read_papers(tmp_path)
    assert (papers.quantised_bits, papers.elements) == (4, 64 * 128 + 8 * 64 + 5)
    assert papers.stored == {"float32": scales.nbytes + biases.nbytes + 2 * own_scales.nbytes, "bfloat16": 10}


def test_a_directory_that_tells_nothing_has_no_papers(tmp_path: Path) -> None:
    assert read_papers(tmp_path) == ModelPapers()
    (tmp_path / "config.json").write_text("[]")
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    assert read_papers(tmp_path) == ModelPapers(damaged=("model.safetensors",))


# --- eos_template ---

NAMES = {1: "<|endoftext|>", 2: "<|im_end|>", 3: "<end_of_turn>"}
FINE = TurnEnds({"tokenizer": frozenset({2}), "config.json": frozenset({1, 2})}, NAMES, True, {"inside": 2, "end": 2})


@pytest.mark.parametrize(
    ("ends", "status", "said", "mend"),
    [
        (FINE, OK, "<|im_end|> (2)", None),
        (replace(FINE, written={"inside": 3, "end": 2}), OK, "<|im_end|> (2)", None),
        (replace(FINE, written={"inside": 3}), ERROR, "ends a turn with <end_of_turn> (3)", "add 3 to"),
        (replace(FINE, named={}, written={"inside": 3}), ERROR, "name no end-of-sequence token", "eos_token_id"),
        (replace(FINE, named={"tokenizer": frozenset({700})}), ERROR, "there is no other", "correct"),
        (replace(FINE, named={"tokenizer": frozenset({2, 700})}), WARNING, "700 is not in the vocabulary", "correct"),
        (
            replace(FINE, named={"tokenizer": frozenset({1}), "config.json": frozenset({2})}),
            WARNING,
            "tokenizer ends a sequence with <|endoftext|> (1), config.json with <|im_end|> (2)",
            "have config.json name",
        ),
        (replace(FINE, has_template=False, written={}), WARNING, "no chat template", "made for chats"),
        (replace(FINE, written={}), WARNING, "writes nothing there", None),
        (replace(FINE, written={}, refusal="no system"), UNKNOWN, "refuses a conversation of three turns (no sy", None),
    ],
)
def test_turns_that_do_not_end_where_the_server_stops_are_told(
    ends: TurnEnds, status: CheckStatus, said: str, mend: str | None
) -> None:
    check = stops_check(ends, 500)
    assert check.status is status
    assert said in check.detail
    assert (mend or "") in (check.mend or "")
    assert (check.mend is None) == (mend is None)


def test_an_id_that_the_model_has_no_row_for_never_comes() -> None:
    assert stops_check(FINE, 500).status is OK
    assert stops_check(FINE, None).status is OK
    assert stops_check(FINE, 2).status is WARNING
    assert stops_check(FINE, 1).status is ERROR


# --- memory_pressure ---


def measured(level: PressureLevel, used: float) -> MonitorSnapshot:
    return MonitorSnapshot(level, MemoryUsage(0, 0, 0, 4 * 10**9, 16 * 10**9, used))


@pytest.mark.parametrize(
    ("monitor", "action", "status", "said"),
    [
        (measured(PressureLevel.NORMAL, 0.5), "warn", OK, "50% of the machine's memory is in use, below 70 %"),
        (measured(PressureLevel.WARN, 0.75), "warn", WARNING, "The limit is 85 %"),
        (measured(PressureLevel.LIMIT, 0.9), "warn", ERROR, "served all the same"),
        (measured(PressureLevel.LIMIT, 0.9), "reduce-context", ERROR, "half of their output"),
        (measured(PressureLevel.LIMIT, 0.9), "reject-new", ERROR, "refused with 503"),
        (MonitorSnapshot(PressureLevel.NORMAL, None), "warn", UNKNOWN, "not been measured"),
        (None, "warn", UNKNOWN, "not been measured"),
    ],
)
def test_memory_is_told_by_its_level_and_by_what_is_done(
    monitor: MonitorSnapshot | None, action: str, status: CheckStatus, said: str
) -> None:
    check = memory_check(monitor, Settings.model_validate({"memory_action": action}))
    assert check.status is status
    assert said in check.detail
    assert (check.mend is None) == (status in (OK, UNKNOWN))
    assert check.figures["action"] == action


# --- versions ---

HERE = Surroundings(
    python=(3, 12, 1),
    system="Linux",
    processor="x86_64",
    glibc=(2, 36),
    packages={"mlx": "0.32.4", "mlx-lm": "0.32.2", "transformers": "5.2.0"},
    wanted={"mlx": ">=0.32,<0.33", "mlx-lm": ">=0.32.2,<0.33", "transformers": ">=5,<6"},
)
MAC = replace(HERE, system="Darwin", processor="arm64", macos=(15, 2), glibc=())


@pytest.mark.parametrize(
    ("here", "status", "said"),
    [
        (HERE, OK, "All 3 packages"),
        (MAC, OK, "All 3 packages"),
        (replace(HERE, packages={**HERE.packages, "mlx-lm": "0.31.3"}), WARNING, "mlx-lm 0.31.3 is installed"),
        (replace(HERE, packages={**HERE.packages, "mlx-lm": "0.33.0"}), WARNING, "made for >=0.32.2,<0.33"),
        (replace(HERE, packages={"mlx": "0.32.4", "mlx-lm": "0.32.2"}), ERROR, "transformers is not installed"),
        (replace(HERE, packages={**HERE.packages, "mlx": "0.32.0"}), WARNING, "mlx is older than 0.32.1"),
        (replace(HERE, packages={**HERE.packages, "transformers": "4.57.3"}), ERROR, "transformers is older than 5"),
        (replace(HERE, python=(3, 10, 9)), ERROR, "Python is older"),
        (replace(HERE, slow_blas=True), WARNING, "no OpenBLAS"),
        (replace(HERE, glibc=(2, 31)), ERROR, "glibc 2.35"),
        (replace(MAC, macos=(14, 6)), WARNING, "kept wired"),
        (replace(MAC, macos=(13, 4)), ERROR, "older than 14"),
        (replace(MAC, processor="x86_64"), ERROR, "Rosetta"),
        (replace(HERE, packages={}, wanted={}), UNKNOWN, "cannot be found"),
    ],
)
def test_what_is_installed_is_held_against_what_was_tried(here: Surroundings, status: CheckStatus, said: str) -> None:
    check = versions_check(here)
    assert check.status is status
    assert said in check.detail
    assert (check.mend is None) == (status in (OK, UNKNOWN))


def test_a_known_issue_says_who_says_so() -> None:
    issues = versions_check(replace(MAC, macos=(14,))).figures["known_issues"]
    assert isinstance(issues, list)
    assert [each["source"].startswith("https://") for each in issues] == [True]


def test_here_is_all_that_the_project_asks_for() -> None:
    here = surroundings()
    assert here.packages.keys() == here.wanted.keys() >= {"mlx", "mlx-lm", "tokenizers", "hypercorn", "quart", "anyio"}
    assert "pytest" not in here.wanted
    assert {"pytest", "ruff"} <= {each.name for each in extras()["dev"]}
    assert "dev" not in extras_installed()
    assert len(requirements()) > len(here.wanted)


# --- batch_invariance ---


def tally(agreement: float) -> Tally:
    return Tally(4, 128, agreement, None if agreement == 1 else 7, 0.25)


def probe(**agreements: float) -> ProbeSnapshot:
    tallies = {DivergenceCause(cause): tally(value) for cause, value in agreements.items()}
    return ProbeSnapshot(1, False, min(agreements.values(), default=1) < 0.95, 0.95, tallies, 3.0)


SCHEDULER = SchedulerSnapshot((), (), (), (), 0, 32, None, 0, 0)
SERIAL = replace(SCHEDULER, mode=RuntimeMode.SIMPLE, serialised=True)


@pytest.mark.parametrize(
    ("shown", "scheduler", "settings", "status", "said", "mend"),
    [
        (None, SCHEDULER, {}, UNKNOWN, "Nobody compares", "--batch-divergence-monitor"),
        (replace(probe(), rounds=0), SCHEDULER, {}, UNKNOWN, "first comparison", None),
        (replace(probe(), rounds=0, given_up=2), None, {}, UNKNOWN, "2 were given up", None),
        (probe(company=1.0, cache=0.96), SCHEDULER, {}, OK, "agree to 0.96", None),
        (probe(company=0.9), SCHEDULER, {}, ERROR, "alone and in company 0.9 agree", "--batch-invariant, or"),
        (probe(company=0.9), SCHEDULER, {"batch_invariant": True}, ERROR, "at 7", "--batch-divergence-action ser"),
        (probe(company=1.0, traffic=0.5), SCHEDULER, {}, ERROR, "as clients were answered", "--batch-invariant"),
        (probe(company=0.9), SERIAL, {}, WARNING, "run one at a time until it is over", None),
        (probe(company=1.0, cache=0.5), SERIAL, {}, WARNING, "from a kept prefix", "--batch-invariant, or --cache-m"),
        (probe(cache=0.5), SERIAL, {"batch_invariant": True}, WARNING, "from a kept", "--cache-memory-mb 0"),
    ],
)
def test_divergence_is_told_by_its_cause_and_by_what_is_done(
    shown: ProbeSnapshot | None,
    scheduler: SchedulerSnapshot | None,
    settings: dict[str, object],
    status: CheckStatus,
    said: str,
    mend: str | None,
) -> None:
    check: Check = invariance_check(shown, scheduler, Settings.model_validate(settings))
    assert check.status is status
    assert said in check.detail
    assert (check.mend or "").startswith(mend or "")
    assert (check.mend is None) == (mend is None)
    assert check.figures["serialized"] == (scheduler is SERIAL)


def test_the_figures_are_by_cause() -> None:
    figures = invariance_check(probe(company=0.9, cache=1.0), SCHEDULER, Settings()).figures["agreement"]
    assert isinstance(figures, dict)
    assert (figures["company"]["agreement"], figures["company"]["first_difference"]) == (0.9, 7)
    assert figures["cache"]["compared_tokens"] == 128
