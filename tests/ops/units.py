"""Reads the service files as their comments tell to fill them in: for this checkout and this Python."""

import plistlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "ops" / "troupe.service"
PLIST = ROOT / "ops" / "org.troupe.server.plist"


def filled(file: Path, home: Path) -> str:
    """The text with its placeholders filled in; `home` stands for the user's."""
    text = file.read_text()
    for placeholder in re.findall(r"^(?:#| ) +(/\S+)  ", text, re.MULTILINE):
        assert placeholder in text.replace(placeholder, "", 1), f"{placeholder} is to be filled in, but is not there"
    replaced = {"/opt/troupe/.venv/bin/python": sys.executable, "/opt/troupe": str(ROOT), "/Users/YOU": str(home)}
    return re.sub("|".join(replaced), lambda found: replaced[found[0]], text)


def unit(text: str) -> list[tuple[str, str]]:
    """The settings of a systemd unit, in order; some come more than once."""
    lines = [line for line in text.splitlines() if line and line[0] not in "#;["]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def of_unit(text: str, name: str) -> str:
    """The value of a setting that comes once."""
    (value,) = [value for key, value in unit(text) if key == name]
    return value


def plist(text: str) -> dict[str, object]:
    return dict(plistlib.loads(text.encode()))


def seconds(value: str) -> float:
    """A time span as systemd writes it, of one part."""
    number, scale = re.fullmatch(r"(\d+)(s|min|h)", value).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "min": 60, "h": 3600}[scale]
