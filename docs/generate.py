"""Writes the documents that follow from the code: docs/messages.md, docs/settings.md. `--check` only compares."""

import argparse
import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from actors import messages  # noqa: E402
from runtime import settings  # noqa: E402
from runtime.engine import commands  # noqa: E402

NOTE = "<!-- Made by docs/generate.py (`make docs`); edit the code instead. -->\n"

MAILBOXES = {
    "RequestAdmitter": messages.AdmitterWord,
    "Scheduler": messages.SchedulerWord,
    "PrefillWorker": messages.PrefillWord,
    "DecodeWorker": messages.DecodeWord,
    "CacheManager": messages.CacheWord,
    "MemoryMonitor": messages.MonitorWord,
    "DivergenceProbe": messages.ProbeWord,
    "the client": messages.Reply,
}


def messages_page() -> str:
    """Every word, by who hears it, and what crosses the engine seam."""
    fields = {**_fields_of(messages), **_fields_of(commands)}
    lines = [NOTE, "# Messages\n", f"{inspect.getdoc(messages)}\n"]
    for listener, words in MAILBOXES.items():
        lines += [f"## Heard by {listener}\n", *_table(words.__args__, fields)]
    lines += ["# The engine seam\n", f"{inspect.getdoc(commands)}\n"]
    lines += ["## Commands\n", *_table(commands.Command.__args__, fields)]
    lines += ["## Results\n", *_table(commands.Result.__args__, fields)]
    return "\n".join(lines)


def _table(words: tuple[type, ...], fields: dict[str, list[str]]) -> Iterator[str]:
    yield "| word | carries | means |"
    yield "|---|---|---|"
    for word in words:
        own_words = word.__doc__ if word.__doc__ and not word.__doc__.startswith(f"{word.__name__}(") else ""
        carries = ", ".join(f"`{each}`" for each in fields[word.__name__])
        yield f"| `{word.__name__}` | {carries} | {' '.join(own_words.split())} |"
    yield ""


def _fields_of(module: object) -> dict[str, list[str]]:
    """Field names and annotations as written, by class."""
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    return {
        node.name: [
            f"{ast.unparse(line.target)}: {ast.unparse(line.annotation)}".replace("'", "").replace("|", "or")
            for line in node.body
            if isinstance(line, ast.AnnAssign)
        ]
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


def settings_page() -> str:
    """Every setting under its heading, with all its spellings."""
    lines = [NOTE, "# Settings\n"]
    lines.append(
        "A flag beats its environment variable, that beats the TOML file named by `--config`, that beats the\n"
        "default. In the file a setting goes by its name with underscores: `queue_size = 50`.\n"
    )
    title = None
    for name, field in settings.Settings.model_fields.items():
        if field.title != title:
            title = field.title
            lines += [f"\n## {title}\n", "| flag | variable | default | meaning |", "|---|---|---|---|"]
        spellings = settings.names(name, field)
        flags = ", ".join(f"`{settings.flag(each)}`" for each in spellings) if name != "model" else "`MODEL`"
        variables = ", ".join(f"`{settings.variable(each)}`" for each in spellings)
        words = " / ".join(f"`{word}`" for word in settings.choices(field))
        meaning = f"{field.description}{f' ({words})' if words else ''}"
        lines.append(f"| {flags} | {variables} | {settings.shown(field.default)} | {meaning} |")
    return "\n".join(lines) + "\n"


PAGES = {"docs/messages.md": messages_page, "docs/settings.md": settings_page}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="say which pages are out of date; write nothing")
    check = parser.parse_args().check
    stale = 0
    for path, page in PAGES.items():
        file, text = ROOT / path, page()
        if check and (not file.exists() or file.read_text(encoding="utf-8") != text):
            stale += 1
            print(f"{path} is out of date: run `make docs`", file=sys.stderr)
        elif not check:
            file.write_text(text, encoding="utf-8")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
