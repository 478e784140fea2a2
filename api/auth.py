"""The key: every route but /health is behind it, where one is set."""

import hmac

from quart import Quart, request

from api.errors import ApiError

OPEN_ENDPOINTS = frozenset({"operations.health"})


def require_key(app: Quart, api_key: str) -> None:
    """Let `app` answer 401 to calls that do not carry `api_key` as a Bearer token or as x-api-key."""
    expected = api_key.encode()

    @app.before_request
    async def check() -> None:
        if request.endpoint in OPEN_ENDPOINTS:
            return
        # compare_digest takes as long whatever is wrong, so that a key cannot be guessed byte by byte.
        if not hmac.compare_digest(_given_key(), expected):
            raise ApiError(
                401,
                "The API key is missing or wrong: send it as `Authorization: Bearer KEY` or as `x-api-key`.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _given_key() -> bytes:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        key = request.headers.get("x-api-key", "")
    return key.strip().encode("latin-1")  # Quart decodes headers as latin-1, so these are the bytes that came.
