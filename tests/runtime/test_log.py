"""Lines of the log: one record is one line, in both formats, and no line can be forged or say what a prompt says."""

import io
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import orjson
import pytest

from runtime import log
from runtime.engine.hosts import make_host
from runtime.log import JsonLines, TextLines
from runtime.settings import Settings

SECRET = "xyzzy-plugh"
FORMATS = [TextLines, JsonLines]


@pytest.fixture(autouse=True)
def no_request() -> Iterator[None]:
    token = log.current_request.set(None)
    yield
    log.current_request.reset(token)


def record(message: str, *args: object, name: str = "troupe.server", **extra: object) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, "file.py", 1, message, args, None)
    made.created = 1_700_000_000.25
    made.__dict__.update(extra)
    return made


def raised(make: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:
        make()
    return caught.value


def with_error(error: BaseException, name: str) -> logging.LogRecord:
    made = record("it broke", name=name)
    made.exc_info = (type(error), error, error.__traceback__)
    return made


def json(made: logging.LogRecord) -> dict[str, object]:
    return dict(orjson.loads(JsonLines().format(made)))


def test_a_line_of_json_has_time_level_logger_and_message() -> None:
    assert json(record("%d are open", 3)) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "troupe.server",
        "message": "3 are open",
    }


def test_known_fields_are_written_with_their_types_and_unknown_ones_are_not() -> None:
    line = json(record("x", status=200, queue_s=0.5, prefill_s=None, prompt=SECRET))
    assert (line["status"], line["queue_s"]) == (200, 0.5)
    assert "prefill_s" not in line
    assert "prompt" not in line


def test_a_line_of_text_is_read_from_left_to_right() -> None:
    line = TextLines().format(record("3 are open"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING troupe.server: 3 are open", line)


@pytest.mark.parametrize("formatter", FORMATS)
def test_the_running_call_is_named_in_every_line(formatter: type[logging.Formatter]) -> None:
    log.current_request.set("c0ffee")
    assert "c0ffee" in formatter().format(record("x"))


def test_a_request_is_named_once() -> None:
    log.current_request.set("c0ffee")
    assert TextLines().format(record("c0ffee GET / 200")).count("c0ffee") == 1


def test_a_line_about_a_request_names_its_call() -> None:
    call = "0123456789abcdef01234567"
    assert log.about(f"chatcmpl-{call}-0") == {"request_id": call}
    assert json(record("x", **log.about(f"resp_{call}-1")))["request_id"] == call
    assert log.about("r1") == {"request_id": "r1"}


@pytest.mark.parametrize("formatter", FORMATS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\x0b", "\x1b[2K", "\x85", "\u2028", "\u202e"])
def test_nothing_in_a_message_ends_its_line(formatter: type[logging.Formatter], end: str) -> None:
    line = formatter().format(record("%s", f"x{end}2026-01-01 forged", path=f"/{end}"))
    assert len(line.splitlines()) == 1
    assert line.isprintable()


@pytest.mark.parametrize("formatter", FORMATS)
def test_half_a_surrogate_pair_can_be_written(formatter: type[logging.Formatter]) -> None:
    assert "forged" in formatter().format(record("%s", "\ud800 forged", path="\udfff")).encode().decode()


def test_a_traceback_is_indented_so_that_no_line_of_it_looks_like_a_record() -> None:
    error = raised(lambda: int("x\n2026-01-01 00:00:00,000 INFO    troupe.access: forged"))
    lines = TextLines().format(with_error(error, "troupe.engine")).splitlines()
    assert "forged" in lines[-1]
    assert all(line.startswith("    ") for line in lines[1:])


def test_a_traceback_in_json_is_a_field_and_its_type_another() -> None:
    line = json(with_error(raised(lambda: int("x")), "troupe.engine"))
    assert line["exception"] == "ValueError"
    assert "in <lambda>" in str(line["traceback"])
    assert str(line["traceback"]).endswith("ValueError: invalid literal for int() with base 10: 'x'")


def chained() -> None:
    try:
        int(SECRET)
    except ValueError as error:
        error.add_note(SECRET)
        try:
            raise KeyError(SECRET)
        except KeyError:
            raise ExceptionGroup(SECRET, [TypeError(SECRET)]) from error


@pytest.mark.parametrize("formatter", FORMATS)
def test_where_text_is_handled_exceptions_do_not_speak(formatter: type[logging.Formatter]) -> None:
    said = formatter().format(with_error(raised(chained), "troupe.api"))
    assert SECRET not in said
    assert all(word in said for word in ("in chained", "ValueError", "ExceptionGroup", "TypeError"))


@pytest.mark.parametrize("formatter", FORMATS)
def test_where_there_is_no_text_they_do(formatter: type[logging.Formatter]) -> None:
    assert SECRET in formatter().format(with_error(raised(chained), "troupe.engine"))


def test_an_error_that_is_its_own_cause_is_told_once() -> None:
    error = ValueError()
    other = KeyError()
    error.__cause__, other.__cause__ = other, error
    assert log.told(error, words=False).split() == ["KeyError", "and", "then:", "ValueError"]


@pytest.mark.parametrize("formatter", FORMATS)
def test_a_library_says_one_line(formatter: type[logging.Formatter]) -> None:
    said = record(f"Task exception was never retrieved\nfuture: <Task exception=KeyError('{SECRET}')>", name="asyncio")
    assert SECRET not in formatter().format(said)
    assert "never retrieved" in formatter().format(said)


@contextmanager
def as_in_a_new_process() -> Iterator[io.StringIO]:
    """The log is not set up; gives what is written to stderr."""
    root, troupe, hook, stderr = logging.getLogger(), logging.getLogger("troupe"), sys.excepthook, sys.stderr
    handlers, levels = root.handlers[:], (root.level, troupe.level)
    root.handlers[:] = []
    sys.stderr = written = io.StringIO()
    try:
        yield written
    finally:
        sys.stderr, sys.excepthook = stderr, hook
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        troupe.setLevel(levels[1])
        logging.captureWarnings(False)


def test_libraries_do_not_say_what_is_in_headers() -> None:
    """HTTP/2's says below info what it decodes, keys among it, and OpenTelemetry's repeats what it cannot read."""
    with as_in_a_new_process() as written:
        log.configure("text", "debug")
        logging.getLogger("hpack").debug("authorization: Bearer %s", SECRET)
        logging.getLogger("opentelemetry.baggage.propagation").warning("Baggage header `%s` is too long", SECRET)
        logging.getLogger("troupe.x").debug("seen")
    assert SECRET not in written.getvalue()
    assert "seen" in written.getvalue()


def test_a_child_writes_as_its_parent_does() -> None:
    with as_in_a_new_process() as written:
        log.configure_child(log.environment("json", "error"))
        logging.getLogger("troupe.engine").warning("not this")
        logging.getLogger("troupe.engine").error("but this")
    assert orjson.loads(written.getvalue())["message"] == "but this"


def test_what_the_operator_is_told_is_plain_beside_text() -> None:
    with as_in_a_new_process() as written:
        log.configure("text", "error")
        log.say("Troupe serves x")
    assert written.getvalue() == "Troupe serves x\n"


def test_what_the_operator_is_told_is_an_object_beside_json() -> None:
    with as_in_a_new_process() as written:
        log.configure("json", "error")
        log.say("Troupe serves x")
    line = orjson.loads(written.getvalue())
    assert (line["level"], line["message"]) == ("info", "Troupe serves x")


def test_a_crash_is_a_line_of_json_too() -> None:
    error = raised(lambda: int("x"))
    with as_in_a_new_process() as written:
        log.configure("json", "info")
        sys.excepthook(type(error), error, error.__traceback__)
    assert orjson.loads(written.getvalue())["exception"] == "ValueError"


@pytest.mark.anyio
async def test_the_engines_own_process_writes_as_its_server_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that does not start, and says why."""
    host = make_host(Settings(log_format="json"), tmp_path, factory="tests.fakes:no_such_engine")
    with pytest.raises(ExceptionGroup):
        await host.run(task_status=anyio.TASK_STATUS_IGNORED)
    (line,) = [orjson.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert (line["logger"], line["level"], line["exception"]) == ("troupe.engine", "error", "AttributeError")
    assert "no_such_engine" in line["traceback"]
