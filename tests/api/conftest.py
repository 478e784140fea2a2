"""What the tests of the text floor share: a tokeniser, a desk, and an application for the loop under test."""

from pathlib import Path

import pytest
from quart import Quart

from api.text.codec import HfCodec
from tests.api.fakes import FakeDesk, make_app
from tests.tiny import write_tokenizer


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    write_tokenizer(path)
    (path / "config.json").write_text('{"model_type": "llama", "eos_token_id": 2}')
    return path


@pytest.fixture(scope="session")
def codec(tokenizer_path: Path) -> HfCodec:
    """For tests that do not encode: encoding belongs to the event loop that did it first."""
    return HfCodec(tokenizer_path)


@pytest.fixture
def fresh_codec(tokenizer_path: Path) -> HfCodec:
    return HfCodec(tokenizer_path)


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


@pytest.fixture
def app(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> Quart:
    return make_app(desk, fresh_codec, anyio_backend)
