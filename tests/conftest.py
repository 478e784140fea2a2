"""Tests that run on an event loop run on both; Ctrl-C is heard, wherever the tests were started."""

import signal

import pytest

# A shell starts what it puts into the background with SIGINT ignored, and that is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
