"""`troupe doctor`: each finding is made to appear by its cause, and one run of the real command."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from api.doctor import models
from api.doctor.compute import Compute, compute
from api.doctor.finding import Finding, State, as_json, exit_status, show
from api.doctor.installation import installation
from api.doctor.machine import Machine, look, room
from api.doctor.models import AskedModel, asked, on_disk
from api.doctor.running import RunningServer, ask, server
from api.health.check import Check, CheckStatus
from api.health.installed import Surroundings
from api.health.papers import ModelPapers
from runtime.engine.blas import Blas
from runtime.models.catalog import LocalModel, ModelKind
from runtime.settings import Settings
from tests.tiny import make_tiny_llama

OK, SLOW, MISSING, BROKEN = State.OK, State.SLOW, State.MISSING, State.BROKEN
ROOT = Path(__file__).resolve().parents[2]


def found(findings: Iterable[Finding], what: str) -> Finding:
    """The only one of that name."""
    (finding,) = (each for each in findings if each.what == what)
    return finding


def all_ok(findings: Iterable[Finding]) -> bool:
    return {finding.state for finding in findings} == {OK}


# --- what is written ---

SOME = (Finding(OK, "python", "3.12"), Finding(SLOW, "blas", "the reference one", "apt-get install it"))


def test_the_lines_are_aligned_and_plain_where_there_is_no_terminal() -> None:
    out = StringIO()
    show(SOME, Console(file=out, width=20))
    assert out.getvalue().splitlines() == [
        "ok      python  3.12",
        "slow    blas    the reference one  → apt-get install it",
    ]


def test_a_terminal_gets_colours_and_the_same_words() -> None:
    plain, coloured = StringIO(), StringIO()
    show(SOME, Console(file=plain, width=200))
    show(SOME, Console(file=coloured, width=200, force_terminal=True, color_system="standard", no_color=False))
    assert "\x1b[32mok" in coloured.getvalue()
    assert "\x1b" not in plain.getvalue()


def test_only_what_is_broken_is_a_failure() -> None:
    assert exit_status(SOME) == 0
    assert exit_status((*SOME, Finding(BROKEN, "mlx", "does not run"))) == 1
    assert json.loads(as_json(SOME)) == {
        "status": 0,
        "findings": [
            {"state": "ok", "what": "python", "detail": "3.12", "mend": None},
            {"state": "slow", "what": "blas", "detail": "the reference one", "mend": "apt-get install it"},
        ],
    }


# --- installation ---

HERE = Surroundings(
    python=(3, 12, 1),
    system="Linux",
    processor="x86_64",
    packages={"mlx": "0.32.4", "quart": "0.22.0"},
    wanted={"mlx": ">=0.32,<0.33", "quart": ">=0.20,<0.23"},
)


def test_an_installation_as_it_should_be_is_ok() -> None:
    findings = list(installation(HERE, {"cuda13": False}))
    assert all_ok(findings)
    assert found(findings, "packages").detail == "all 2 as Troupe wants them: mlx 0.32.4, quart 0.22.0"
    assert found(findings, "extras").detail == "cuda13 not installed"


@pytest.mark.parametrize(
    ("here", "what", "state", "said"),
    [
        (replace(HERE, packages={"mlx": "0.32.4"}), "packages", BROKEN, "quart is not installed"),
        (replace(HERE, packages={"mlx": "0.31.0", "quart": "0.22.0"}), "packages", BROKEN, "mlx 0.31.0 is installed"),
        (replace(HERE, wanted={}), "packages", MISSING, "it is not installed here"),
        (replace(HERE, python=(3, 10, 1)), "known issue", BROKEN, "older than 3.11"),
        (replace(HERE, system="Darwin", macos=(14, 1)), "known issue", SLOW, "kept wired"),
    ],
)
def test_what_is_wrong_with_an_installation_is_found(here: Surroundings, what: str, state: State, said: str) -> None:
    findings = [each for each in installation(replace(here, processor="arm64"), {}) if each.what == what]
    assert any(each.state is state and said in each.detail for each in findings), findings


def test_the_blas_is_not_told_twice() -> None:
    assert all_ok(installation(replace(HERE, slow_blas=True), {}))


# --- machine ---

MACHINE = Machine(
    cores=8,
    memory=16 * 10**9,
    available=9 * 10**9,
    container_limit=None,
    home="/home/troupe",
    home_free=50 * 10**9,
    has_default=False,
    open_files=1024,
    preload="",
    preload_missing=(),
    port_taken=False,
    on_port=None,
)
TROUPE = RunningServer("http://127.0.0.1:8000", "ok", "tiny/llama", {})


def test_a_machine_with_room_is_ok() -> None:
    assert all_ok(room(MACHINE, Settings()))
    assert all_ok(room(replace(MACHINE, home_free=0, has_default=True), Settings()))


@pytest.mark.parametrize(
    ("machine", "what", "state", "mend"),
    [
        (replace(MACHINE, home_free=10**8), "disk", BROKEN, "TROUPE_HOME"),
        (replace(MACHINE, open_files=128), "open files", BROKEN, "ulimit -n 1024"),
        (replace(MACHINE, port_taken=True), "port", BROKEN, "--port 8001"),
        (replace(MACHINE, port_taken=True, on_port=TROUPE), "port", OK, None),
        (replace(MACHINE, container_limit=4 << 30), "container", MISSING, "--kv-memory-mb 1024"),
        (
            replace(MACHINE, preload="/no/libblas.so", preload_missing=("/no/libblas.so",)),
            "LD_PRELOAD",
            BROKEN,
            "unset",
        ),
        (replace(MACHINE, preload="/lib/libblas.so"), "LD_PRELOAD", OK, None),
        (replace(MACHINE, open_files=-1), "open files", OK, None),
    ],
)
def test_what_a_machine_lacks_is_found(machine: Machine, what: str, state: State, mend: str | None) -> None:
    finding = found(room(machine, Settings()), what)
    assert finding.state is state
    assert (finding.mend or "").startswith(mend or "")
    assert (finding.mend is None) == (mend is None)


def test_a_host_that_cannot_be_a_name_is_told_like_one_that_is_not_there() -> None:
    assert look(Settings(host="a..b"), has_default=True).port_taken


def test_a_container_whose_limit_is_counted_with_is_ok() -> None:
    small = replace(MACHINE, container_limit=4 << 30)
    assert found(room(small, Settings(kv_memory_mb=512)), "container").state is OK


# --- device ---

CPU = Compute("Linux", (), Blas({}, "BLAS: /lib/libblas.so is preloaded into the engine"), device="cpu", gflops=90.0)
SLOW_BLAS = Blas({}, "BLAS: no OpenBLAS found, so the CPU is many times slower: apt-get install it", fast=False)
METAL = Compute("Darwin", (15, 1), None, device="metal", memory=12 * 10**9, gflops=9000.0, wired_limit_mb=14336)


def test_a_device_that_is_used_is_ok() -> None:
    assert all_ok(compute(CPU))
    assert all_ok(compute(METAL))


@pytest.mark.parametrize(
    ("device", "what", "state", "mend"),
    [
        (replace(CPU, device="", trouble="ImportError: libmlx.so"), "mlx", BROKEN, "make setup"),
        (replace(CPU, blas=SLOW_BLAS), "blas", SLOW, "apt-get install libopenblas0-pthread"),
        (replace(CPU, nvidia=True), "cuda", SLOW, "pip install -e '.[cuda13]'"),
        (replace(METAL, wired_limit_mb=0), "wired limit", MISSING, "bash ops/configure_mlx.sh"),
        (replace(METAL, wired_limit_mb=None), "wired limit", MISSING, "bash ops/configure_mlx.sh"),
    ],
)
def test_a_device_that_could_do_more_is_found(device: Compute, what: str, state: State, mend: str) -> None:
    finding = found(compute(device), what)
    assert finding.state is state
    assert finding.mend
    assert finding.mend.startswith(mend)


# --- models ---

DEFAULT = LocalModel("default", ModelKind.DEFAULT, Path("/m"), 117_000_000)


def test_models_that_are_here_are_listed_and_the_default_can_be_fetched() -> None:
    assert [each.state for each in on_disk([DEFAULT])] == [OK]
    finding = found(on_disk([]), "default model")
    assert (finding.state, finding.mend) == (MISSING, "troupe pull default")
    many = [replace(DEFAULT, name=f"m{number}") for number in range(7)]
    assert "and 2 more" in found(on_disk(many), "models").detail


def judged(model: AskedModel, *, device: str = "cpu", memory: int = 10**10, available: int = 10**10) -> list[Finding]:
    return list(asked(model, device=device, memory=memory, available=available))


FINE = AskedModel("m", Path("/m"), "", ModelPapers(elements=10**9, bytes=10**9), Check(CheckStatus.OK, "Fine."), True)


@pytest.mark.parametrize(
    ("findings", "what", "state", "said"),
    [
        (judged(replace(FINE, path=None)), "model m", MISSING, "not fetched"),
        (judged(replace(FINE, trouble="incomplete")), "model m", BROKEN, "incomplete"),
        (judged(FINE), "model m", OK, "4.00 GB on cpu"),
        (judged(FINE, device="cuda"), "model m", OK, "1.00 GB on cuda"),
        (judged(FINE, memory=3 * 10**9), "model m", BROKEN, "which has 3.0 GB"),
        (judged(FINE, available=3 * 10**9), "model m", SLOW, "3.0 GB are free"),
        (judged(FINE), "stop tokens", OK, "Fine"),
        (judged(replace(FINE, stops=Check(CheckStatus.ERROR, "None."))), "stop tokens", BROKEN, "None"),
        (judged(replace(FINE, stops=Check(CheckStatus.WARNING, "Two."))), "stop tokens", MISSING, "Two"),
        (judged(replace(FINE, has_template=False)), "chat template", MISSING, "chats are refused"),
    ],
)
def test_a_model_is_judged_by_its_files(findings: list[Finding], what: str, state: State, said: str) -> None:
    finding = found(findings, what)
    assert (finding.state, said in finding.detail) == (state, True), finding


def test_a_model_is_looked_for_by_its_path_and_by_its_name(tmp_path: Path) -> None:
    path = make_tiny_llama(tmp_path / "tiny")
    here = (replace(DEFAULT, path=path), LocalModel("file", ModelKind.GGUF, path, 1))
    (tmp_path / "file.gguf").touch()
    for name in (str(path), "default", str(tmp_path / "file.gguf")):
        looked = models.look(name, here, trust_remote_code=False)
        assert (looked.path, looked.trouble, looked.has_template) == (path, "", True)
        assert looked.stops
        assert looked.stops.status is CheckStatus.OK
    for name, trouble in [("owner/other", ""), ("/no/such", "no such file"), (str(tmp_path / "new.gguf"), "no such")]:
        looked = models.look(name, here, trust_remote_code=False)
        assert (looked.path, looked.trouble[: len(trouble)]) == (None, trouble)
    (tmp_path / "new.gguf").touch()
    assert models.look(str(tmp_path / "new.gguf"), here, trust_remote_code=False).trouble == ""


def test_weights_that_end_too_early_are_found(tmp_path: Path) -> None:
    path = make_tiny_llama(tmp_path / "tiny")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    finding = found(judged(models.look(str(path), (), trust_remote_code=False)), f"model {path}")
    assert (finding.state, "model.safetensors cannot be read" in finding.detail) == (BROKEN, True)


def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    path = make_tiny_llama(tmp_path / "tiny")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "unheard_of"}))
    looked = models.look(str(path), (), trust_remote_code=False)
    assert "mlx-lm does not have its architecture, unheard_of" in looked.trouble


# --- a server ---

HEALTH = {"status": "ok", "model": "tiny/llama", "uptime_s": 1.0}
CHECKS = {
    "dtype": {"status": "ok", "detail": "Fine.", "mend": None},
    "memory_pressure": {"status": "error", "detail": "Full.", "mend": "less"},
    "versions": {"status": "warning", "detail": "Old.", "mend": None},
    "batch_invariance": {"status": "unknown", "detail": "Nobody looks.", "mend": "--batch-divergence-monitor"},
}


@contextmanager
def answering(pages: dict[str, tuple[int, object]]) -> Iterator[str]:
    """A server that has these pages, and says 401 where its key is not given; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = pages.get(self.path, (404, None))
            if code == 401 and self.headers["Authorization"] == "Bearer s3cret":
                code = 200
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


def test_a_server_is_summarised_by_its_own_checks() -> None:
    with answering({"/health": (200, HEALTH), "/health/diagnostics": (401, {"checks": CHECKS})}) as url:
        known, unknown = ask(f"{url}/v1", "s3cret"), ask(url, None)
    findings = list(server(url, known))
    assert found(findings, "server").state is OK
    states = {each.what: each.state for each in findings if each.what != "server"}
    assert states == {
        "server dtype": OK,
        "server memory_pressure": BROKEN,
        "server versions": SLOW,
        "server batch_invariance": MISSING,
    }
    refused = found(server(url, unknown), "server checks")
    assert (refused.state, refused.mend) == (MISSING, "--api-key KEY")


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ({}, "no Troupe server answers"),
        ({"/health": (200, {"ok": True})}, "no Troupe server answers"),
        ({"/health": (200, ["ok"])}, "no Troupe server answers"),
        ({"/health": (503, HEALTH | {"status": "restarting"})}, "restarting"),
    ],
)
def test_a_server_that_does_not_serve_is_broken(pages: dict[str, tuple[int, object]], said: str) -> None:
    with answering(pages) as url:
        finding = found(server(url, ask(url, None)), "server")
    assert (finding.state, said in finding.detail) == (BROKEN, True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "file:///etc/passwd", "localhost:8000", "http://["])
def test_no_server_at_all_is_broken(url: str) -> None:
    assert found(server(url, ask(url, None)), "server").state is BROKEN


# --- the command ---


def test_the_command_says_what_it_found_here(tmp_path: Path) -> None:
    model = make_tiny_llama(tmp_path / "tiny")
    environment = {**os.environ, "TROUPE_HOME": str(tmp_path), "TROUPE_PORT": "0", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "cli.py", "doctor", str(model), "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = json.loads(done.stdout)
    states = {each["what"]: each["state"] for each in told["findings"]}
    assert {states[what] for what in ("python", "machine", "disk", "port", "mlx", f"model {model}", "stop tokens")} == {
        "ok"
    }, told
    assert states["default model"] == "missing"
    assert (done.returncode, told["status"]) == (0, 0) or "broken" in states.values()
