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
QUIET = "export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1\n"
"""Without it Claude Code asks for a title as well, in a schema."""

TITLE = '{"title": "Writing hello"}'
POSTED = re.compile(r"POST '/v1/[^']+' (\d{3})")


CLAUDE_CALL = hermes_call("Bash", {"command": COMMAND, "description": "Write the file"})
CODEX_CALL = hermes_call("exec_command", {"cmd": COMMAND})
OPENCODE_CALL = hermes_call("bash", {"command": COMMAND, "description": "Write the file"})


def lines(call: str) -> Lines:
    return Lines(call=f"I shall write it.\n{call}", answer=ANSWER, plain=TITLE)


def assert_done(desk: Desk, server: ServerProcess, printed: str, *, requests: int = 2) -> None:
    """The agent told the answer, the tool did its work, and the server refused nothing."""
    assert ANSWER in printed
    assert (desk.project / "hello.txt").read_text() == "hello\n"
    statuses = POSTED.findall(server.output())
    assert len(statuses) >= requests, server.output()
    assert set(statuses) == {"200"}, server.output()


def set_codex_up(desk: Desk) -> None:
    desk.write(desk.home / ".codex" / "config.toml", block("codex.md", "toml"))


def test_claude_code(serve: Serve, tmp_path: Path) -> None:
    server = serve(lines(CLAUDE_CALL))
    desk = Desk(tmp_path, server.url)
    assert_done(desk, server, desk.run(block("claude-code.md", "bash")))


def test_claude_code_with_a_model_that_thinks_and_calls_two_tools(serve: Serve, tmp_path: Path) -> None:
    second = hermes_call("Bash", {"command": "touch second.txt", "description": "Make another"})
    call = f"<think>\nTwo files, then.\n</think>\n\n{CLAUDE_CALL}\n{second}"
    answer = f"<think>\nBoth are there.\n</think>\n\n{ANSWER}"
    server = serve(Lines(call=call, answer=answer, plain=TITLE), "--reasoning-parser", "qwen3")
    desk = Desk(tmp_path, server.url)
    commands = block("claude-code.md", "bash").replace(QUIET, "").rstrip()
    printed = desk.run(f"{commands} --output-format stream-json --verbose")
    assert_done(desk, server, printed, requests=3)
    assert (desk.project / "second.txt").exists()
    events = [json.loads(line) for line in printed.splitlines()]
    said = [part for event in events if event["type"] == "assistant" for part in event["message"]["content"]]
    assert [part["thinking"] for part in said if part["type"] == "thinking"] == ["Two files, then.", "Both are there."]
    assert events[-1]["result"] == ANSWER


def test_codex(serve: Serve, tmp_path: Path) -> None:
    server = serve(lines(CODEX_CALL))
    desk = Desk(tmp_path, server.url)
    set_codex_up(desk)
    assert_done(desk, server, desk.run(block("codex.md", "bash")))


def test_codex_calls_a_tool_and_answers_in_a_schema(serve: Serve, tmp_path: Path) -> None:
    answer = json.dumps({"said": ANSWER})
    server = serve(Lines(call=CODEX_CALL, answer=answer, plain=TITLE))
    desk = Desk(tmp_path, server.url)
    set_codex_up(desk)
    properties = {"said": {"type": "string"}}
    schema = {"type": "object", "properties": properties, "required": ["said"], "additionalProperties": False}
    desk.write(desk.project / "schema.json", json.dumps(schema))
    printed = desk.run(block("codex.md", "bash").rstrip() + " --output-schema schema.json")
    assert_done(desk, server, printed)
    assert json.loads(printed) == {"said": ANSWER}


@pytest.mark.parametrize("package", ["@ai-sdk/openai-compatible", "@ai-sdk/anthropic", "@ai-sdk/openai"])
def test_opencode(serve: Serve, tmp_path: Path, package: str) -> None:
    server = serve(lines(OPENCODE_CALL))
    desk = Desk(tmp_path, server.url)
    settings = json.loads(block("opencode.md", "json"))
    settings["provider"]["troupe"]["npm"] = package
    desk.write(desk.project / "opencode.json", json.dumps(settings))
    assert_done(desk, server, desk.run(block("opencode.md", "bash")))
