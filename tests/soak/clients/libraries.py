"""LangChain, LiteLLM and Instructor, as their guide says: what they print is what the model said."""

from pathlib import Path

import pytest

from tests.scripted import Lines, hermes_call
from tests.soak.clients.conftest import Serve
from tests.soak.clients.guides import Desk, block

ADA: dict[str, object] = {"name": "Ada", "age": 36}
PARIS: dict[str, object] = {"city": "Paris"}


def lines(call: str) -> Lines:
    return Lines(call=call, answer="It rains.", plain='{"name": "Ada", "age": 36}')


CASES = [
    ("LangChain", hermes_call("weather", PARIS), "weather {'city': 'Paris'}\nPerson(name='Ada', age=36)"),
    ("LiteLLM", hermes_call("weather", PARIS), '{"name": "Ada", "age": 36}'),
    ("Instructor", hermes_call("Person", ADA), "Person(name='Ada', age=36)"),
]


@pytest.mark.parametrize(("library", "call", "printed"), CASES, ids=[case[0] for case in CASES])
def test_an_example_of_the_guide(serve: Serve, tmp_path: Path, library: str, call: str, printed: str) -> None:
    server = serve(lines(call))
    desk = Desk(tmp_path, server.url)
    desk.write(desk.project / "example.py", block("libraries.md", "python", under=library))
    assert desk.run("python example.py") == printed
