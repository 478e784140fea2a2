"""Pages of other origins may read replies only if the operator named them: the CORS protocol of WHATWG's Fetch.

Without these headers a browser lets no page of another origin read anything.
"""

from quart import Quart, Response, request

REMEMBER_S = 600
"""How long a browser may keep what a preflight said."""


def allow_origins(app: Quart, origins: frozenset[str]) -> None:
    """Answer the preflights of `origins`, which carry no key, and let their pages read replies. Others get what they
    would get anyway, without a header that lets a page read it."""

    @app.before_request
    async def preflight() -> Response | None:
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        return app.response_class(status=204) if request.headers.get("Origin") in origins else None

    @app.after_request
    async def mark(response: Response) -> Response:
        response.headers.add("Vary", "Origin")  # A cache must not hand one origin's reply to another.
        origin = request.headers.get("Origin")
        if origin not in origins:
            return response
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "*"
        if response.status_code == 204 and request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
            response.headers["Access-Control-Allow-Headers"] = request.headers.get(
                "Access-Control-Request-Headers", "*"
            )
            response.headers["Access-Control-Max-Age"] = str(REMEMBER_S)
        return response
