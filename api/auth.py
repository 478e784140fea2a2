"""Who may ask, and how often: every route but the open ones is behind the key, where one is set, and the rate limit."""

import hmac
import ipaddress
import math
from collections.abc import Callable

from quart import Quart, Response, g, request

from api.errors import ApiError
from api.rate_limit import RateLimit
from runtime.settings import Settings

OPEN_ENDPOINTS = frozenset({"operations.show_health", "metrics.show", "page.show"})

KEY_HOLDER = "key"
"""The client's name if it has the key: there is one key, so there is one such client."""


def keep_door(app: Quart, settings: Settings, now: Callable[[], float]) -> None:
    """Let `app` answer 401 to calls that do not carry the key as a Bearer token or as x-api-key, and 429 to clients
    that ask more often than the rate limit allows.

    The address is the peer's: what a client says of itself in X-Forwarded-For can be anything. Under a rate limit
    wrong keys are limited too, by address, and an address at that limit is refused before its key is looked at:
    otherwise a guess that is right would go through all the same.
    """
    api_key, per_minute = settings.api_key, settings.rate_limit
    requests = RateLimit(per_minute) if per_minute else None
    failures = RateLimit(per_minute) if per_minute else None

    @app.before_request
    async def check() -> None:
        if request.endpoint in OPEN_ENDPOINTS:
            return
        client = _address()
        if api_key is not None:
            _check_key(api_key, failures, client, now())
            client = KEY_HOLDER
        if requests:
            g.client = client
            _refuse_if_early(requests, client, now())
            requests.take(client, now())

    if requests:
        app.after_request(lambda response: _say_what_is_left(response, requests, now()))


def _check_key(api_key: str, failures: RateLimit | None, address: str, now: float) -> None:
    if failures:
        _refuse_if_early(failures, address, now)
    # compare_digest takes as long whatever is wrong, so that a key cannot be guessed byte by byte.
    if hmac.compare_digest(_given_key(), api_key.encode()):
        return
    if failures:
        failures.take(address, now)
    raise ApiError(
        401,
        "The API key is missing or wrong: send it as `Authorization: Bearer KEY` or as `x-api-key`.",
        code="invalid_api_key",
        # Claude Code tries a wrong key for minutes unless it is told that this is no use.
        headers={"WWW-Authenticate": "Bearer", "X-Should-Retry": "false"},
    )


def _refuse_if_early(limit: RateLimit, client: str, now: float) -> None:
    if wait_s := limit.wait_s(client, now):
        seconds = math.ceil(wait_s)
        raise ApiError(
            429,
            f"More than {limit.per_minute} requests per minute; try again in {seconds} s.",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(seconds)},
        )


def _say_what_is_left(response: Response, limit: RateLimit, now: float) -> Response:
    """The headers that OpenAI sends (platform.openai.com/docs/guides/rate-limits)."""
    if client := g.get("client"):
        response.headers["x-ratelimit-limit-requests"] = str(limit.per_minute)
        response.headers["x-ratelimit-remaining-requests"] = str(limit.remaining(client, now))
        response.headers["x-ratelimit-reset-requests"] = f"{math.ceil(limit.full_in_s(client, now))}s"
    return response


def _address() -> str:
    """The peer's address; an IPv6 client has a whole /64 to itself, so that counts as one."""
    peer = request.remote_addr or ""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _given_key() -> bytes:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        key = request.headers.get("x-api-key", "")
    return key.strip().encode("latin-1")  # Quart decodes headers as latin-1, so these are the bytes that came.
