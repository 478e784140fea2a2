"""Five thousand calls that schemathesis makes up from /openapi.json, good and bad ones: no 5xx, no reply that the
document does not know, nothing bad taken, nothing good refused without a reason. `make fuzz`."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.e2e.process import ROOT, ServerProcess
from tests.tiny import make_tiny_llama

CALLS = 5_000
KEY = "fuzz"
FLAGS = (
    "--max-tokens",
    "4",
    "--enable-auto-tool-choice",
    "--enable-metrics",
    "--api-key",
    KEY,
    "--log-level",
    "warning",
)


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        model = make_tiny_llama(Path(place) / "tiny", context=4096)
        with ServerProcess(str(model), *FLAGS) as server:
            said = fuzz(server.url, sys.argv[1:])
            alive = server.process.poll() is None
    made = re.search(r"(\d+) generated", said)
    enough = made is not None and int(made[1]) >= CALLS
    print(f"{'enough' if enough else 'too few'} calls; the server {'lives' if alive else 'died'}")
    return 0 if enough and alive and "failed" not in said.rpartition("SUMMARY")[2] else 1


def fuzz(url: str, arguments: list[str]) -> str:
    """Let schemathesis loose on the server; returns what it printed, which is also passed on."""
    config = ["--config-file", "tests/soak/schemathesis.toml"]
    schemathesis = Path(sys.executable).with_name("schemathesis")
    target = ["run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {KEY}"]
    running = subprocess.Popen(
        [schemathesis, *config, *target, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    lines = []
    assert running.stdout
    for line in running.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    running.wait()
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
