"""Real servers with models that speak written lines."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.process import ServerProcess
from tests.scripted import Lines, make_scripted_llama

Serve = Callable[[Lines], ServerProcess]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server whose model says the given lines; it ends with the test."""
    with ExitStack() as stack:

        def start(lines: Lines) -> ServerProcess:
            model = make_scripted_llama(tmp_path / "model", lines)
            return stack.enter_context(ServerProcess(str(model), "--enable-auto-tool-choice"))

        yield start
