"""Rules of the house that import-linter does not see."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    ROOT / "cli.py",
    *(file for room in ("actors", "api", "runtime") for file in sorted((ROOT / room).rglob("*.py"))),
]
ACTORS = [file for file in FILES if file.parent.name == "actors" and "(Actor[" in file.read_text()]


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imports(tree: ast.AST) -> set[str]:
    """Top-level packages that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("file", FILES, ids=named)
def test_every_file_says_in_its_first_line_why_it_exists(file: Path) -> None:
    docstring = ast.get_docstring(ast.parse(file.read_text()))
    assert docstring
    assert docstring.splitlines()[0].rstrip().endswith((".", "?", ":", "!"))


@pytest.mark.parametrize("file", [file for file in FILES if file.name != "cli.py"], ids=named)
def test_nobody_imports_the_command_line_or_the_tests(file: Path) -> None:
    assert not imports(ast.parse(file.read_text())) & {"cli", "tests"}


@pytest.mark.parametrize("file", ACTORS, ids=named)
def test_nothing_in_an_actor_awaits(file: Path) -> None:
    asynchronous = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, asynchronous)]


def test_all_actors_are_looked_at() -> None:
    assert len(ACTORS) >= 6


@pytest.mark.parametrize("file", [file for file in FILES if file.name != "supervisor.py"], ids=named)
def test_nobody_catches_everything_and_goes_on_in_silence(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ExceptHandler):
            catches_all = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            assert not (catches_all and all(isinstance(line, ast.Pass) for line in node.body)), f"line {node.lineno}"
