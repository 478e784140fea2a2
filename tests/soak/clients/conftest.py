"""Real servers with models that speak written lines."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.e2e.process import ServerProcess
from tests.scripted import Lines, make_scripted_llama


class Serve(Protocol):
    """Start a server whose model says `lines`, with `settings` beside those that agents need."""

    def __call__(self, lines: Lines, *settings: str) -> ServerProcess: ...


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A server that ends with the test."""
    with ExitStack() as stack:

        def start(lines: Lines, *settings: str) -> ServerProcess:
            model = make_scripted_llama(tmp_path / "model", lines)
            return stack.enter_context(ServerProcess(str(model), "--enable-auto-tool-choice", *settings))

        yield start
