"""GET /: the page is whole, brings nothing along and calls nobody, and shows what the snapshot says."""

import base64
import hashlib
import re
import shutil
import subprocess
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import cast

import orjson
import pytest
from quart import Quart

from actors.snapshots import HouseSnapshot, MailboxSnapshot, RoomState
from api.page.serve import made
from api.text.codec import HfCodec
from tests.api.calling import call
from tests.api.fakes import PROBE, TROUBLE, VITALS, FakeDesk, make_app, snapshot

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "api" / "page"
NODE = shutil.which("node")
with_node = pytest.mark.skipif(NODE is None, reason="there is no Node.js here")

Shown = dict[str, list[list[str]]]


class Elements(HTMLParser):
    """What a browser finds: tags with their attributes, and the texts of styles and scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"style": [], "script": []}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.lasttag in self.texts and self.get_starttag_text() is not None and data.strip():
            self.texts[self.lasttag].append(data)


@pytest.fixture(scope="module")
def page() -> str:
    return made()


# --- how it is served ---


@pytest.mark.anyio
async def test_it_is_open_where_everything_else_wants_a_key(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str, page: str
) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, api_key="k", rate_limit=1)
    for _ in range(3):  # No page is what the rate limit counts.
        reply = await call(app, "GET", "/")
        assert (reply.status, reply.body.decode()) == (200, page)
    assert (await call(app, "GET", "/v1/actors")).status == 401


@pytest.mark.anyio
async def test_its_headers_let_it_do_nothing_but_ask_this_server(app: Quart, page: str) -> None:
    for method in ("GET", "HEAD"):
        reply = await call(app, method, "/")
        assert reply.status == 200
        headers = reply.headers
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-cache"
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        found = Elements(page)
        (style,), (script,) = found.texts["style"], found.texts["script"]
        assert policy["default-src"] == "'none'"
        assert policy["connect-src"] == "'self'"
        assert (policy["style-src"], policy["script-src"]) == (digest(style), digest(script))
        assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_its_files_come_with_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["api.page"]
    shipped = {path.name for pattern in patterns for path in FOLDER.glob(pattern)}
    assert shipped == {path.name for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".py"}


# --- what it is made of ---


def test_it_is_one_file_that_refers_to_nothing_outside(page: str) -> None:
    assert not re.findall(r"/\* [\w.]+\.(?:css|js) \*/", page)
    assert set(re.findall(r"\w+://[^\"\s)]+", page)) == {"http://www.w3.org/2000/svg"}
    for tag, attributes in Elements(page).tags:
        assert not {"src", "style", "action"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "data:,") == "data:,", tag
    assert "@import" not in page
    assert "url(" not in page


def test_it_sets_texts_as_text_alone(page: str) -> None:
    script = Elements(page).texts["script"][0]
    unsafe = 'innerHTML outerHTML insertAdjacentHTML document.write eval( Function( setTimeout(" srcdoc DOMParser'
    assert [word for word in unsafe.split() if word in script] == []


def test_every_element_that_its_script_asks_for_is_there_once(page: str) -> None:
    ids = [attributes["id"] for _, attributes in Elements(page).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    asked = set(re.findall(r'byId\("([\w-]+)"\)', page))
    assert asked
    assert asked <= set(ids)
    labelled = {
        attributes[name]
        for _, attributes in Elements(page).tags
        for name in ("aria-labelledby", "for")
        if name in attributes
    }
    assert labelled <= set(ids)


def test_every_table_has_headings_and_what_changes_is_said(page: str) -> None:
    tags = Elements(page).tags
    assert all(attributes.get("scope") == "col" for tag, attributes in tags if tag == "th")
    assert [tag for tag, attributes in tags if attributes.get("aria-live") == "polite"] == ["p", "p"]


# --- what it shows ---


def shown(house: HouseSnapshot, before: HouseSnapshot | None = None) -> Shown:
    """What the page's own script makes of a snapshot, in Node.js: the texts of every part of it."""
    assert NODE
    parts = ["now", "trends", "requests", "actors", "engine", "memory", "cache", "divergence", "troubles"]
    calls = ", ".join(f"{part}: {part}(house, before)" for part in parts)
    script = [(FOLDER / name).read_text() for name in ("words.js", "view.js")]
    script.append(f"const [house, before] = {orjson.dumps([house, before], option=orjson.OPT_NON_STR_KEYS).decode()};")
    script.append(
        f"console.log(JSON.stringify({{{calls}, note: [divergenceNote(house)], more: [[requestsNote(house)]]}}))"
    )
    ran = subprocess.run(
        [NODE, "--input-type=module"], input="\n".join(script), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert not re.search(r"undefined|NaN|Infinity|\[object", ran.stdout), ran.stdout
    found = cast("dict[str, list[object]]", orjson.loads(ran.stdout))
    return {
        part: [
            cast("dict[str, list[str]]", row)["cells"] if isinstance(row, dict) else cast("list[str]", row)
            for row in rows
        ]
        for part, rows in found.items()
    }


@with_node
def test_its_script_is_one_that_can_be_run(page: str, tmp_path: Path) -> None:
    assert NODE
    script = tmp_path / "page.mjs"
    script.write_text(Elements(page).texts["script"][0])
    ran = subprocess.run([NODE, "--check", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@with_node
def test_it_shows_the_line_the_rows_and_every_actor() -> None:
    house = replace(snapshot(), probe=PROBE, engine=VITALS, troubles=(TROUBLE,))
    decode = house.decode
    assert decode
    boxes = {name: MailboxSnapshot(1, None, 17) for name in ("request_admitter", "scheduler", "divergence_probe")}
    earlier = {name: MailboxSnapshot(0, None, 7) for name in boxes}
    house = replace(house, mailboxes=boxes, decode=replace(decode, produced_tokens=100))
    before = replace(house, at=3.0, mailboxes=earlier, decode=replace(decode, produced_tokens=50))
    found = shown(house, before)
    assert found["requests"] == [
        ["a", "queued", "4.0 s", "", "–", "–", "–"],
        ["b", "prefill", "3.0 s", "25 of 100", "–", "–", "prefix, 10 tokens"],
        ["c", "generation", "500 ms", "16 of 64", "12.5", "250 ms", "miss"],
    ]
    assert [row[:5] for row in found["actors"]] == [
        ["request_admitter", "alive", "1", "5.0", "–"],
        ["scheduler", "alive", "1", "5.0", "1"],
        ["divergence_probe", "alive", "1", "5.0", "0"],
    ]
    assert ["Tokens/s", "25.0"] in found["now"]
    assert ["Process", "77"] in found["engine"]
    assert ["Machine", "50 % of 14.9 GiB"] in found["memory"]
    assert ["Hit rate", "25 %"] in found["cache"]
    assert found["divergence"][0] == ["alone, in company", "0.7500", "8", "256", "4", "0.13"]
    assert found["note"] == [
        ["3 rounds · 1 without a result · the last 2.0 s ago · below the threshold of 0.95", "bad"]
    ]
    assert found["troubles"] == [["3.5 s", "warning", "scheduler", "something is not as it should be"]]


@with_node
@pytest.mark.parametrize("room", [RoomState.LOADING, RoomState.RESTARTING])
def test_it_shows_a_house_whose_engine_room_is_closed(room: RoomState) -> None:
    empty = dict.fromkeys(("facts", "scheduler", "prefill", "decode", "cache", "monitor"))
    found = shown(replace(snapshot(room), **empty))  # type: ignore[arg-type]
    assert found["now"][0][:2] == ["State", room.value]
    assert [row[1] for row in found["requests"]] == ["queued"] * 3
    assert found["actors"][0][:2] == ["scheduler", "starting" if room is RoomState.LOADING else "dead"]
    assert found["note"] == [["Nobody looks: --batch-divergence-monitor is off.", ""]]
