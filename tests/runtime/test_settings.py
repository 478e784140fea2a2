"""Settings: one definition, four sources."""

from pathlib import Path

import pytest

import cli
from runtime import settings
from runtime.errors import SettingsError


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "troupe.toml"
    config.write_text("port = 1001\nqueue_size = 11\nmax_tokens = 21\n")
    monkeypatch.setenv("TROUPE_PORT", "1002")
    monkeypatch.setenv("TROUPE_QUEUE_SIZE", "12")
    chosen = settings.load({"port": "1003"}, config=config)
    assert (chosen.port, chosen.queue_size, chosen.max_tokens, chosen.max_concurrency) == (1003, 12, 21, 32)


@pytest.mark.parametrize(
    ("given", "rows"), [({}, 32), ({"max_concurrency": "auto"}, 32), ({"max_concurrency": "7"}, 7)]
)
def test_how_many_run_at_once_is_a_number_or_the_word_auto(given: dict[str, object], rows: int) -> None:
    assert settings.load(given).max_concurrency == rows


def test_an_alias_is_the_same_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = vars(cli._parser().parse_args(["serve", "--queue-timeout", "7"]))
    assert arguments["timeout"] == "7"
    monkeypatch.setenv("TROUPE_QUEUE_TIMEOUT", "8")
    assert settings.load({}).timeout == 8


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"port": "http"}, "--port: Input should be a valid integer"),
        ({"port": "70000"}, "--port: Input should be less than or equal to 65535"),
        ({"max_concurrency": "many"}, "--max-concurrency: Input should be a valid integer"),
        ({"timeout": "0"}, "--timeout: Input should be greater than 0"),
        ({"timeout": "nan"}, "--timeout: "),
        ({"memory_warn_threshold": "90"}, "--memory-limit-threshold must exceed --memory-warn-threshold"),
        ({"memory_action": "panic"}, "--memory-action: Input should be 'warn', 'reduce-context' or 'reject-new'"),
        ({"max_thinking_tokens": "5"}, "--max-thinking-tokens needs --reasoning-parser"),
        ({"kv_bits": "6"}, "--kv-bits: Input should be 4 or 8"),
        ({"kv_bits": "eight"}, "--kv-bits: Input should be 4 or 8"),
        ({"tool_call_parser": "parrot"}, "--tool-call-parser: "),
        ({"cors_origins": "https://a.example/"}, "--cors-origins: 'https://a.example/' is not an origin"),
        ({"cors_origins": "*"}, "--cors-origins: '*' is not an origin"),
        (
            {"use_paged_cache": True, "cache_strategy": "legacy"},
            "--use-paged-cache and another --cache-strategy exclude each other",
        ),
        ({"cache_dir": ""}, "--cache-dir: String should have at least 1 character"),
        ({"cache_dir": "d", "cache_memory_mb": "0"}, "--cache-dir needs a cache in memory, and --cache-memory-mb is 0"),
        (
            {"cache_dir": "d", "cache_memory_percent": "0"},
            "--cache-dir needs a cache in memory, and --cache-memory-percent is 0",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_its_flag(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.load(given)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"cache_dir": "d"},
        {"cache_dir": "d", "cache_memory_mb": "64", "cache_memory_percent": "0"},
        {"cache_memory_mb": "0"},
        {"cache_dir_mb": "1"},
    ],
)
def test_a_cache_on_disk_wants_one_in_memory_and_nothing_else(given: dict[str, object]) -> None:
    assert settings.load(given).cache_dir == given.get("cache_dir")


def test_an_error_spells_a_setting_as_it_was_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "troupe.toml"
    config.write_text("queue_timeout = 0\n")
    assert _refusal({}, config) == "queue_timeout: Input should be greater than 0"
    monkeypatch.setenv("TROUPE_QUEUE_TIMEOUT", "-1")
    assert _refusal({}, config) == "TROUPE_QUEUE_TIMEOUT: Input should be greater than 0"
    assert _refusal({"timeout": "-2"}, config) == "--timeout: Input should be greater than 0"
    config.write_text("cache_memory_mb = 0\n")
    monkeypatch.setenv("TROUPE_CACHE_DIR", "d")
    assert _refusal({"timeout": "1"}, config) == "TROUPE_CACHE_DIR needs a cache in memory, and cache_memory_mb is 0"


def test_a_name_that_no_setting_has_is_said_to_be_none(tmp_path: Path) -> None:
    config = tmp_path / "troupe.toml"
    config.write_text('colour = "red"\n')
    assert _refusal({}, config) == "colour: there is no such setting"


def _refusal(flags: dict[str, object], config: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        settings.load(flags, config=config)
    return str(caught.value)


@pytest.mark.parametrize("text", ["port = ", "port = 1\nport = 2", "[server]\nport = 1"])
def test_a_broken_file_is_one_line_that_names_what_is_wrong(text: str, tmp_path: Path) -> None:
    config = tmp_path / "troupe.toml"
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        settings.load({}, config=config)
    assert "\n" not in str(caught.value)


def test_every_setting_is_a_flag_of_serve_and_of_launch() -> None:
    for command in ("serve", "launch"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        parser = cli._parser()
        for name, field in settings.Settings.model_fields.items():
            if name == "model":
                continue
            value = settings.choices(field)[0] if settings.choices(field) else "1"
            argv = [command, settings.flag(name), *([] if field.annotation is bool else [value])]
            assert name in vars(parser.parse_args(argv))


@pytest.mark.parametrize(
    ("given", "parser"),
    [
        ({}, None),
        ({"enable_auto_tool_choice": True}, "auto"),
        ({"tool_call_parser": "qwen"}, "qwen"),
        ({"tool_call_parser": "qwen", "enable_auto_tool_choice": True}, "qwen"),
    ],
)
def test_naming_a_tool_parser_is_enough_to_parse_tools(given: dict[str, object], parser: str | None) -> None:
    assert settings.load(given).tool_parser == parser


def test_a_list_is_words_with_commas_on_the_command_line_and_a_list_in_a_file(tmp_path: Path) -> None:
    config = tmp_path / "troupe.toml"
    config.write_text('cors_origins = ["https://a.example"]\n')
    assert settings.load({}, config=config).cors_origins == ("https://a.example",)
    assert settings.load({"cors_origins": "https://a.example, http://b:1,"}).cors_origins == (
        "https://a.example",
        "http://b:1",
    )


def test_a_choice_of_numbers_is_one_in_every_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "troupe.toml"
    config.write_text("kv_bits = 8\n")
    assert settings.load({}, config=config).kv_bits == 8
    monkeypatch.setenv("TROUPE_KV_BITS", "4")
    assert settings.load({}, config=config).kv_bits == 4
    flags = vars(cli._parser().parse_args(["serve", "--kv-bits", "8"]))
    assert settings.load({"kv_bits": flags["kv_bits"]}, config=config).kv_bits == 8
    monkeypatch.delenv("TROUPE_KV_BITS")
    assert settings.load({}).kv_bits is None
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    assert "--kv-bits {4,8}" in capsys.readouterr().out


def test_launch_takes_the_model_by_flag() -> None:
    assert vars(cli._parser().parse_args(["launch", "--model-path", "m", "--model-type", "lm"]))["model"] == "m"


@pytest.mark.parametrize("argv", [["--version"], ["--help"], ["serve", "--help"], ["models", "--help"]])
def test_help_and_version_work(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 0
    assert "troupe" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["serve", "--port", "-1"], "--port: Input should be greater than or equal to 0"),
        (
            ["serve", "--cache-strategy", "x"],
            "--cache-strategy: Input should be 'auto', 'memory-aware', 'paged' or 'legacy'",
        ),
        (["launch", "--engine", "x"], "--engine: Input should be 'process' or 'thread'"),
        (["serve", "--port"], "--port: expected one argument (see troupe serve --help)"),
        (["serve", "--colour"], "unrecognized arguments: --colour (see troupe --help)"),
        ([], "the following arguments are required: COMMAND (see troupe --help)"),
    ],
)
def test_whatever_is_wrong_on_the_command_line_is_one_line_and_status_one(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 1
    assert capsys.readouterr() == ("", f"troupe: {said}\n")
