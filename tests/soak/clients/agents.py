"""Claude Code, Codex and OpenCode, set up as their guides say: a tool is called and the prompt answered."""

import json
import re
from pathlib import Path

import pytest

from tests.e2e.process import ServerProcess
from tests.scripted import Lines, hermes_call
from tests.soak.clients.conftest import Serve
from tests.soak.clients.guides import Desk, block

COMMAND = "echo hello > hello.txt"
ANSWER = "hello.txt says hello now."
TITLE = '{"title": "Writing hello"}'
POSTED = re.compile(r"POST '/v1/[^']+' (\d{3})")


def lines(tool: str, arguments: dict[str, object]) -> Lines:
    return Lines(call=f"I shall write it.\n{hermes_call(tool, arguments)}", answer=ANSWER, plain=TITLE)


def assert_done(desk: Desk, server: ServerProcess, printed: str) -> None:
    """The agent told the answer, the tool did its work, and the server refused nothing."""
    assert ANSWER in printed
    assert (desk.project / "hello.txt").read_text() == "hello\n"
    statuses = POSTED.findall(server.output())
    assert len(statuses) >= 2, server.output()
    assert set(statuses) == {"200"}, server.output()


def test_claude_code(serve: Serve, tmp_path: Path) -> None:
    server = serve(lines("Bash", {"command": COMMAND, "description": "Write the file"}))
    desk = Desk(tmp_path, server.url)
    assert_done(desk, server, desk.run(block("claude-code.md", "bash")))


def test_codex(serve: Serve, tmp_path: Path) -> None:
    server = serve(lines("exec_command", {"cmd": COMMAND}))
    desk = Desk(tmp_path, server.url)
    desk.write(desk.home / ".codex" / "config.toml", block("codex.md", "toml"))
    assert_done(desk, server, desk.run(block("codex.md", "bash")))


@pytest.mark.parametrize("package", ["@ai-sdk/openai-compatible", "@ai-sdk/anthropic", "@ai-sdk/openai"])
def test_opencode(serve: Serve, tmp_path: Path, package: str) -> None:
    server = serve(lines("bash", {"command": COMMAND, "description": "Write the file"}))
    desk = Desk(tmp_path, server.url)
    settings = json.loads(block("opencode.md", "json"))
    settings["provider"]["troupe"]["npm"] = package
    desk.write(desk.project / "opencode.json", json.dumps(settings))
    assert_done(desk, server, desk.run(block("opencode.md", "bash")))
