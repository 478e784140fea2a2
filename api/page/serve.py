"""GET /: the page, one file without a request for anything else, and headers that hold it to that."""

import base64
import hashlib
from importlib.resources import files

from quart import Blueprint, Response, current_app

PARTS = ("page.css", "words.js", "view.js", "draw.js", "page.js")
"""What index.html has a place for, as a comment with the file's name."""


def page_routes() -> Blueprint:
    """The page, which holds no data: what it shows it asks for, with the key that its reader gives it."""
    routes = Blueprint("page", __name__)
    page = made()
    headers = headers_of(page)

    @routes.get("/")
    async def show() -> Response:
        return current_app.response_class(page, headers=headers, mimetype="text/html")

    return routes


def made() -> str:
    """index.html with its style and its script inside."""
    folder = files(__package__)
    page = folder.joinpath("index.html").read_text("utf-8")
    for name in PARTS:
        page = page.replace(f"/* {name} */", folder.joinpath(name).read_text("utf-8"))
    return page


def headers_of(page: str) -> dict[str, str]:
    """What keeps the browser from running, loading or sending anything that is not the page's own
    (www.w3.org/TR/CSP3): the style and the script are named by their digests."""
    policy = {
        "default-src": "'none'",
        "style-src": _digest(page, "<style>", "</style>"),
        "script-src": _digest(page, '<script type="module">', "</script>"),
        "connect-src": "'self'",
        "img-src": "data:",  # The icon, which is empty.
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _digest(page: str, start: str, end: str) -> str:
    text = page.partition(start)[2].partition(end)[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
