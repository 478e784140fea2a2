"""What the guides to clients tell people to write and to run, so that the same can be written and run here."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.process import ROOT

INSTALLED = ROOT / "build" / "clients"
"""Where `make clients` puts the agents (node_modules) and the libraries (venv)."""

ADDRESS = "http://127.0.0.1:8000"
TIMEOUT_S = 180


def block(guide: str, language: str, *, under: str = "") -> str:
    """The first fenced block in `language` of docs/guides/`guide`, behind the heading `under`."""
    text = (ROOT / "docs" / "guides" / guide).read_text(encoding="utf-8")
    _, _, rest = text.partition(f"## {under}\n") if under else ("", "", text)
    found = re.search(rf"```{language}\n(.*?)```", rest, re.DOTALL)
    assert found, f"{guide} has no {language} block {under and f'under {under}'}"
    return found[1]


@dataclass(frozen=True, slots=True)
class Desk:
    """A place to work at: a home and a project, both empty, and the address of a server."""

    place: Path
    url: str

    @property
    def home(self) -> Path:
        """The user's home directory."""
        return self.place / "home"

    @property
    def project(self) -> Path:
        """The directory that commands run in."""
        return self.place / "project"

    def write(self, path: Path, text: str) -> None:
        """Put what a guide shows into a file, with this server's address."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(ADDRESS, self.url), encoding="utf-8")

    def run(self, commands: str) -> str:
        """What the commands of a guide print, with this server's address and nothing of this process's environment."""
        for directory in (self.home, self.project):
            directory.mkdir(parents=True, exist_ok=True)
        path = f"{INSTALLED}/venv/bin:{INSTALLED}/node_modules/.bin:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-eu", "-c", commands.replace(ADDRESS, self.url)],
            cwd=self.project,
            env={"PATH": path, "HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout.strip()
