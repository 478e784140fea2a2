"""What the engine would compute on, and how fast, measured in a process that is started like the engine's."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from api.doctor.finding import Finding, State
from runtime import children
from runtime.engine import blas

CONFIGURE = "bash ops/configure_mlx.sh"
GAUGE = "runtime.mlx.gauge"
LONGEST_S = 30.0


@dataclass(frozen=True, slots=True)
class Compute:
    """What was found of the device."""

    system: str
    macos: tuple[int, ...]
    blas: blas.Blas | None
    """None where MLX brings what it needs."""
    trouble: str = ""
    """Why MLX did not run; then the rest is empty."""
    device: str = ""
    device_name: str = ""
    memory: int = 0
    """Bytes that MLX may use."""
    dtype: str = ""
    gflops: float = 0.0
    nvidia: bool = False
    """Whether there is a driver of NVIDIA's."""
    wired_limit_mb: int | None = None
    """What macOS lets the GPU keep; 0 is its default, None is not known."""


class Gauge:
    """The measuring child: it runs while other things are looked at."""

    def __init__(self) -> None:
        self._blas = blas.find(os.environ.get("LD_PRELOAD", ""))
        self._child = subprocess.Popen(
            [sys.executable, "-m", GAUGE],
            env=children.environment(self._blas.environment if self._blas else None),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def read(self, *, system: str, macos: tuple[int, ...]) -> Compute:
        """Wait for it to end."""
        here = Compute(system, macos, self._blas, nvidia=_has_nvidia(), wired_limit_mb=_wired_limit_mb(system))
        try:
            said, errors = self._child.communicate(timeout=LONGEST_S)
            return _measured(here, said) if self._child.returncode == 0 else _failed(here, self._child, errors)
        except subprocess.TimeoutExpired:
            return _with_trouble(here, f"no product was computed within {LONGEST_S:g} s")
        finally:
            self._child.kill()
            self._child.communicate()


def _measured(here: Compute, said: str) -> Compute:
    found = json.loads(said)
    return Compute(
        here.system,
        here.macos,
        here.blas,
        device=found["device"],
        device_name=found["device_name"],
        memory=found["memory_bytes"],
        dtype=found["dtype"],
        gflops=found["gflops"],
        nvidia=here.nvidia,
        wired_limit_mb=here.wired_limit_mb,
    )


def _failed(here: Compute, child: "subprocess.Popen[str]", errors: str) -> Compute:
    lines = errors.strip().splitlines() or [f"it ended with status {child.returncode}"]
    return _with_trouble(here, lines[-1])


def _with_trouble(here: Compute, trouble: str) -> Compute:
    return Compute(here.system, here.macos, here.blas, trouble, nvidia=here.nvidia, wired_limit_mb=here.wired_limit_mb)


def _has_nvidia() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _wired_limit_mb(system: str) -> int | None:
    if system != "Darwin":
        return None
    done = subprocess.run(["sysctl", "-n", "iogpu.wired_limit_mb"], capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdecimal() else None


def compute(found: Compute) -> Iterator[Finding]:
    """What of it is as it should be."""
    if found.trouble:
        yield Finding(State.BROKEN, "mlx", f"does not run: {found.trouble}", "make setup, or pip install -e .")
    else:
        named = f" ({found.device_name})" if found.device_name else ""
        speed = f"{found.gflops:g} GFLOP/s in {found.dtype}"
        yield Finding(State.OK, "mlx", f"computes on {found.device}{named}, {speed}, measured just now")
    if found.nvidia and found.device == "cpu":
        detail = "there is a GPU of NVIDIA's, and MLX is installed without CUDA"
        yield Finding(State.SLOW, "cuda", detail, "pip install -e '.[cuda13]', or cuda12 for older drivers")
    if found.blas and found.device in ("cpu", ""):
        yield _blas(found.blas)
    if found.system == "Darwin" and found.device:
        yield _wired(found)


def _blas(found: blas.Blas) -> Finding:
    detail = found.said.removeprefix("BLAS: ").partition(": apt-get")[0]
    if found.fast:
        return Finding(State.OK, "blas", detail)
    return Finding(State.SLOW, "blas", detail, "apt-get install libopenblas0-pthread")


def _wired(found: Compute) -> Finding:
    """What macOS below 15 lacks is a known issue, told elsewhere."""
    limit = f"the GPU may use {found.memory / 1e9:.1f} GB"
    if found.wired_limit_mb:
        return Finding(State.OK, "wired limit", f"{found.wired_limit_mb} MB: {limit}")
    return Finding(State.MISSING, "wired limit", f"{limit}, macOS's default", CONFIGURE)
