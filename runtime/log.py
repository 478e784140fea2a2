"""Log lines as text or as JSON: one record is one line, and of what a client wrote the path alone is in them.

What an exception says may quote a prompt, so only the loggers of floors that never see text repeat it.
"""

import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType

import orjson

current_request: ContextVar[str | None] = ContextVar("current_request", default=None)
"""The id of the call that the running task works for: its x-request-id."""

FIELDS = (
    "request_id",
    "method",
    "path",
    "route",
    "status",
    "error",
    "duration_s",
    "first_byte_s",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "queue_s",
    "prefill_s",
    "decode_s",
)
"""What a record may carry as `extra`; anything else is not written."""

SPEAKING = frozenset({"troupe.engine", "troupe.engine_room", "troupe.supervisor", "troupe.server"})
"""Loggers of what sees tokens and tensors, never text: their tracebacks have the exceptions' own words."""

QUOTING = ("opentelemetry.baggage", "opentelemetry.trace.span")
"""Loggers of libraries whose warnings repeat a client's headers."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What could end a line, or make a terminal show another one."""

_CALL_ID = re.compile("[0-9a-f]{24}")

_FORMAT, _LEVEL = "TROUPE_LOG_FORMAT", "TROUPE_LOG_LEVEL"


def configure(log_format: str, level: str) -> None:
    """Write the log to stderr, `text` or `json`, from `level` on; of libraries nothing below info, because they say
    headers and bodies there."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    severity = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(severity, logging.INFO), handlers=[handler])
    logging.getLogger("troupe").setLevel(severity)
    for name in QUOTING:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.captureWarnings(True)
    if log_format == "json":
        sys.excepthook = _say_crash


def environment(log_format: str, level: str) -> dict[str, str]:
    """What a child process finds in its environment, so that its lines are like ours."""
    return {_FORMAT: log_format, _LEVEL: level}


def configure_child(environ: Mapping[str, str]) -> None:
    """As `configure`, by what `environment` gave."""
    configure(environ.get(_FORMAT, "text"), environ.get(_LEVEL, "info"))


def say(line: str, level: int = logging.INFO) -> None:
    """Tell the operator on stderr whatever --log-level is; where the log is JSON, this is as well."""
    handlers = [each for each in logging.getLogger().handlers if isinstance(each.formatter, JsonLines)]
    for handler in handlers:
        handler.handle(logging.LogRecord("troupe", level, "", 0, line, None, None))
    if not handlers:
        print(line, file=sys.stderr, flush=True)


def about(request_id: str) -> dict[str, str]:
    """The `extra` of a line about a request. Its id holds that of its call: `chatcmpl-CALL-0` (api/exchange.py)."""
    found = _CALL_ID.search(request_id)
    return {"request_id": found[0] if found else request_id}


class TextLines(logging.Formatter):
    """For people. A traceback is more lines, which no record begins like: they are indented."""

    def format(self, record: logging.LogRecord) -> str:
        said, request = _said(record), _request(record)
        line = f"{self.formatTime(record)} {record.levelname:<7} {record.name}: {_escaped(said)}"
        if request and request not in said:
            line += f" request={_escaped(request)}"
        if error := _error(record):
            lines = told(error, words=record.name in SPEAKING).split("\n")
            line += "".join(f"\n    {_escaped(each)}" for each in lines)
        return line


class JsonLines(logging.Formatter):
    """For machines: an object a line, with what is known and without what is not."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _said(record),
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if request := _request(record):
            line["request_id"] = request
        if error := _error(record):
            line["exception"] = type(error).__qualname__
            line["traceback"] = told(error, words=record.name in SPEAKING)
        return _escaped(orjson.dumps(_encodable(line)).decode())


def told(error: BaseException, *, words: bool) -> str:
    """The traceback, innermost call last; with the exceptions' own words, as Python prints it, or without."""
    return "".join(traceback.format_exception(error) if words else _wordless(error, set())).rstrip("\n")


def _wordless(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier and id(earlier) not in seen:
        yield from _wordless(earlier, seen)
        yield "and then:\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{type(error).__qualname__}\n"
    for inner in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        yield from _wordless(inner, seen)


def _said(record: logging.LogRecord) -> str:
    """The message; of a library's only the first line: asyncio shows whole exceptions in the others."""
    said = record.getMessage()
    return said if record.name.startswith("troupe") else said.partition("\n")[0]


def _request(record: logging.LogRecord) -> str | None:
    given: str | None = getattr(record, "request_id", None)
    return given or current_request.get()


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _escaped(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _encodable(line: dict[str, object]) -> dict[str, object]:
    """orjson refuses halves of surrogate pairs."""
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in line.items()
    }


def _say_crash(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    logging.getLogger("troupe.server").critical("the server ends: %s", type(error).__name__, exc_info=error)
