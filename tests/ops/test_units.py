"""The service files: they are well-formed, what they promise each other fits, and systemd takes the unit."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from api.server import CLOSING_S
from runtime.settings import Settings
from tests.ops.units import PLIST, ROOT, UNIT, filled, of_unit, plist, seconds, unit

GRACE_S = 5.0
"""Beyond what the server itself takes, before it is killed."""


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "troupe.service"
    file.write_text(filled(UNIT, tmp_path))
    done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_variable_in_the_service_files_is_a_setting() -> None:
    words = f"{UNIT.read_text()} {PLIST.read_text()}".replace("=", " ").replace("<", " ").replace(">", " ").split()
    variables = {word for word in words if word.startswith("TROUPE_") and "…" not in word} - {"TROUPE_HOME"}
    known = {f"TROUPE_{name.upper()}" for name in Settings.model_fields}
    assert "TROUPE_DRAIN_TIMEOUT" in variables
    assert {variable.rstrip(",.") for variable in variables} <= known


def test_nobody_kills_the_server_while_it_drains(tmp_path: Path) -> None:
    text = UNIT.read_text()
    drains = [value for key, value in unit(text) if value.startswith("TROUPE_DRAIN_TIMEOUT=")]
    drain_s = float(drains[0].partition("=")[2])
    assert seconds(of_unit(text, "TimeoutStopSec")) >= drain_s + CLOSING_S + GRACE_S
    agent = plist(filled(PLIST, tmp_path))
    environment = agent["EnvironmentVariables"]
    assert isinstance(environment, dict)
    assert agent["ExitTimeOut"] >= float(environment["TROUPE_DRAIN_TIMEOUT"]) + CLOSING_S + GRACE_S  # type: ignore[operator]


def test_a_start_has_the_time_to_load_a_model() -> None:
    assert seconds(of_unit(UNIT.read_text(), "TimeoutStartSec")) > Settings().engine_load_timeout


def test_both_start_the_server_again_when_it_fails_and_only_then(tmp_path: Path) -> None:
    assert of_unit(UNIT.read_text(), "Restart") == "on-failure"
    assert plist(filled(PLIST, tmp_path))["KeepAlive"] == {"SuccessfulExit": False}


def test_launchd_does_not_throttle_the_server(tmp_path: Path) -> None:
    assert plist(filled(PLIST, tmp_path))["ProcessType"] == "Interactive"


def test_the_label_is_the_files_name(tmp_path: Path) -> None:
    assert plist(filled(PLIST, tmp_path))["Label"] == PLIST.stem


def test_nothing_hides_the_gpu_or_forbids_compiling() -> None:
    """ProtectClock allows one device, and thereby no other."""
    hidden = {"MemoryDenyWriteExecute", "PrivateDevices", "ProtectClock", "ProcSubset", "DevicePolicy", "DeviceAllow"}
    assert not hidden & {key for key, _ in unit(UNIT.read_text())}


def test_the_script_is_where_it_is_looked_for() -> None:
    assert (ROOT / "configure_mlx.sh").read_text() == (ROOT / "ops" / "configure_mlx.sh").read_text()
    assert os.path.islink(ROOT / "configure_mlx.sh")
