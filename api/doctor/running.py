"""How a server that runs is, by what it says of itself."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request

from api.capabilities_client import LONGEST_REPLY, OPENER, authorization
from api.doctor.finding import Finding, State

_STATES = {"ok": State.OK, "unknown": State.MISSING, "warning": State.SLOW, "error": State.BROKEN}


@dataclass(frozen=True, slots=True)
class RunningServer:
    """What /health and /health/diagnostics said."""

    url: str
    status: str
    """`ok`, `loading`, `restarting` or `draining`."""
    model: str
    checks: Mapping[str, Mapping[str, object]]
    """By name; none where the server wants a key that was not given, or is another's."""
    refusal: str = ""
    """Why there are none."""


def ask(url: str, api_key: str | None, *, timeout_s: float = 3.0) -> RunningServer | None:
    """The Troupe server at `url`, with or without a `/v1` at its end; None if none answers there."""
    base = url.rstrip("/").removesuffix("/v1")
    if not base.startswith(("http://", "https://")):
        return None
    _, health = _get(f"{base}/health", None, timeout_s)
    if not {"status", "model", "uptime_s"} <= health.keys():
        return None
    code, report = _get(f"{base}/health/diagnostics", api_key, timeout_s)
    checks = report.get("checks") if code == 200 else None
    refusal = "" if code == 200 else f"/health/diagnostics answered {code}"
    return RunningServer(
        base, str(health["status"]), str(health["model"]), checks if isinstance(checks, dict) else {}, refusal
    )


def _get(url: str, api_key: str | None, timeout_s: float) -> tuple[int, dict[str, object]]:
    """Status and body; 0 and nothing where there is no server, nothing where the reply is no JSON object."""
    try:
        request = Request(url, headers=authorization(api_key))  # noqa: S310 (checked by `ask`)
        with OPENER.open(request, timeout=timeout_s) as reply:
            code, text = reply.status, reply.read(LONGEST_REPLY)
    except HTTPError as error:
        with error:
            code, text = error.code, error.read(LONGEST_REPLY)
    except (OSError, HTTPException, ValueError):
        return 0, {}
    try:
        body = json.loads(text)
    except ValueError:
        return code, {}
    return code, body if isinstance(body, dict) else {}


def server(url: str, found: RunningServer | None) -> Iterator[Finding]:
    """What `ask` found at `url`."""
    if found is None:
        yield Finding(State.BROKEN, "server", f"no Troupe server answers at {url}", "troupe serve")
        return
    state = State.OK if found.status == "ok" else State.BROKEN
    yield Finding(state, "server", f"{found.url} serves {found.model}: {found.status}")
    if found.refusal:
        key = "--api-key KEY" if found.refusal.endswith("401") else None
        yield Finding(State.MISSING, "server checks", found.refusal, key)
    for name, check in found.checks.items():
        mend = check.get("mend")
        detail = str(check.get("detail")).rstrip(".")
        state = _STATES.get(str(check.get("status")), State.MISSING)
        yield Finding(state, f"server {name}", detail, str(mend) if mend else None)
