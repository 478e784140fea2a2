"""A real server in a type that does not suit the device tells so, to its operators and to doctor."""

from pathlib import Path

from api.doctor import running
from api.doctor.finding import State
from tests.e2e.process import ServerProcess


def test_half_precision_on_the_cpu_is_told_by_the_server_and_by_doctor(tiny_model: Path) -> None:
    with ServerProcess(str(tiny_model), "--dtype", "float16") as server:
        found = running.ask(server.url, None)
    assert found
    dtype, turns = found.checks["dtype"], found.checks["eos_template"]
    assert (dtype["status"], turns["status"], found.checks["batch_invariance"]["status"]) == (
        "warning",
        "ok",
        "unknown",
    )
    assert "float16 on the CPU" in str(dtype["detail"])
    states = {each.what: each.state for each in running.server(server.url, found)}
    assert (states["server"], states["server dtype"]) == (State.OK, State.SLOW)
