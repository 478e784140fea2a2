"""The dashboard in a terminal: a pty, in which everything must be as it was when it ends."""

import os
import pty
import re
import signal
import socket
import termios
from pathlib import Path

import pytest
from rich.console import Console

import cli
from api.dashboard import attached
from api.dashboard.keys import unbuffered
from api.dashboard.parts import line
from api.dashboard.screen import Screen
from tests.api.dashboard.terminal import terminal

NOBODY = "http://127.0.0.1:1"
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-9]")


@pytest.mark.parametrize(
    ("end", "options", "coloured"),
    [("q", (), True), (signal.SIGTERM, ("--no-color",), False)],
    ids=["q", "SIGTERM without colour"],
)
def test_however_it_ends_the_terminal_is_as_it_was(
    end: str | signal.Signals, options: tuple[str, ...], coloured: bool
) -> None:
    with terminal("top", *options, NOBODY) as shown:
        shown.until(rb"not connected")
        assert not shown.is_as_before()
        if isinstance(end, str):
            shown.type(end)
        else:
            shown.process.send_signal(end)
        assert shown.ended() == 0
        assert shown.is_as_before()
        assert bool(COLOUR.search(shown.written)) == coloured


def test_a_dumb_terminal_gets_lines_and_no_escapes() -> None:
    with terminal("top", NOBODY, env={"TERM": "dumb"}) as shown:
        shown.until(rb"not connected, trying again: nobody listens there")
        shown.process.send_signal(signal.SIGINT)
        assert shown.ended() == 0
        assert b"\x1b" not in shown.written


def test_where_there_is_no_terminal_a_server_refuses_its_dashboard(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--dashboard"]) == 1
    assert "--dashboard needs a terminal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:"), ("::", "http://[::1]:")]
)
def test_a_server_finds_itself_on_its_own_machine(host: str, url: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        assert attached.url_of(listener) == url + str(listener.getsockname()[1])


def test_the_log_goes_aside_and_one_that_is_too_large_is_put_away(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "home" / "serve.log"
    path.parent.mkdir()
    with path.open("wb") as log:
        log.truncate(attached.LARGEST_LOG + 1)
    with attached.log_aside(path):
        os.write(2, b"something happened\n")
    assert path.read_bytes() == b"something happened\n"
    assert path.with_name("serve.log.1").exists()
    assert capfd.readouterr().err == f"The log is written to {path}\nThe log is in {path}\n"


def test_a_screen_writes_only_the_lines_that_changed(tmp_path: Path) -> None:
    path = tmp_path / "written"
    with path.open("w", encoding="utf-8") as file:
        screen = Screen(Console(file=file, force_terminal=True, width=20, height=3, legacy_windows=False), None)
        with screen.taken():
            screen.draw([line("one"), line("two")], (20, 3))
            screen.draw([line("one"), line("drei")], (20, 3))
            screen.draw([line("one"), line("drei")], (21, 3))
    written = path.read_text()
    assert [written.count(each) for each in ("one", "two", "drei")] == [2, 1, 2]


def test_a_keyboard_is_unbuffered_only_inside() -> None:
    ours, theirs = pty.openpty()
    try:
        before = termios.tcgetattr(theirs)
        with pytest.raises(RuntimeError), unbuffered(theirs):
            assert not termios.tcgetattr(theirs)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
            raise RuntimeError
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)
