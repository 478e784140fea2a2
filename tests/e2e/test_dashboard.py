"""`serve --dashboard`: a server and its dashboard in one terminal."""

from pathlib import Path

from tests.api.dashboard.terminal import terminal


def test_a_server_shows_its_dashboard_and_ends_when_it_is_quit(tiny_model: Path, tmp_path: Path) -> None:
    environment = {"TROUPE_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    with terminal("serve", str(tiny_model), "--port", "0", "--dashboard", "--api-key", "k", env=environment) as shown:
        shown.until(rb"ready")
        shown.type("q")
        assert shown.ended() == 0
        assert shown.is_as_before()
        assert b"Draining: open requests have 30 s to end" in shown.written
        assert f"The log is in {tmp_path}/serve.log".encode() in shown.written
    assert "Troupe serves" in (tmp_path / "serve.log").read_text()
