"""Every example in the documents is run, and says what the document says it says."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.process import ROOT, ServerProcess

pytestmark = pytest.mark.model

DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "guide.md", ROOT / "docs" / "guides" / "operations.md")
EXAMPLE = re.compile(r"```(bash|python)\n(.*?)```\n+```(?:json|text)\n(.*?)```", re.DOTALL)
CHANGING = re.compile(r'chatcmpl-\w+|"created":\d+|"uptime_s":[\d.]+')
EXAMPLES = [(file.name, *found.groups()) for file in DOCUMENTS for found in EXAMPLE.finditer(file.read_text())]


@pytest.fixture(scope="module")
def server(default_model: Path) -> Iterator[ServerProcess]:
    assert default_model
    with ServerProcess() as running:
        yield running


def constant(text: str) -> str:
    """What does not change from run to run."""
    return CHANGING.sub("...", text).strip()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize(("document", "language", "code", "output"), EXAMPLES)
def test_an_example_does_what_is_shown(
    server: ServerProcess, document: str, language: str, code: str, output: str
) -> None:
    command = ["bash", "-c"] if language == "bash" else [sys.executable, "-c"]
    code = code.replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run([*command, code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert constant(done.stdout) == constant(output), document
