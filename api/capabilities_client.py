"""For programs that want to know what a Troupe server can do. Needs nothing but the standard library.

caps = fetch_capabilities("http://localhost:8000", api_key="not-needed")
runtime = summarize_capabilities(caps)
print(runtime["supports_multimodal"], runtime["default_timeout_seconds"])
"""

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import TypedDict, cast, get_args, get_origin, get_type_hints, is_typeddict

LONGEST_REPLY = 1 << 20


class Server(TypedDict):
    name: str
    version: str


class Modalities(TypedDict):
    """What the model takes in, and what else it gives than text."""

    text: bool
    images: bool
    embeddings: bool


class Auth(TypedDict):
    required: bool
    schemes: list[str]


class RateLimited(TypedDict):
    enabled: bool
    requests_per_minute: int | None


class Features(TypedDict):
    streaming: bool
    logprobs: bool
    prefix_cache: bool
    tools: bool
    """Whether calls of tools are found in what the model writes."""
    structured_output: bool
    reasoning: bool
    """Whether thinking is told apart from content."""
    request_diagnostics: bool
    strict_model_id: bool
    metrics: bool
    deterministic: bool
    """Whether the same request gets the same answer: one sequence at a time, greedy."""
    batch_invariant: bool
    """Whether a request's tokens are the same whatever else runs."""


class Parsers(TypedDict):
    tool_call: str | None
    reasoning: str | None


class Diagnostics(TypedDict):
    levels: list[str]
    default_level: str


class Limits(TypedDict):
    declared_context_tokens: int
    """What the model was made for."""
    effective_context_tokens: int
    """What prompt and output may hold together here."""
    default_max_tokens: int
    default_timeout_seconds: float
    max_thinking_tokens: int | None
    max_body_bytes: int
    max_concurrency: int
    max_queue_size: int


class Runtime(TypedDict):
    mode: str
    """`simple` is one sequence at a time, `batched` many; `auto` is simple until some come together."""
    mode_threshold: int
    """Open requests at which `auto` becomes batched."""


class RepetitionPolicy(TypedDict):
    default_mode: str
    supported_modes: list[str]
    request_override: bool


class SamplingPolicy(TypedDict):
    greedy_forced: bool
    """Whether every request is greedy, whatever temperature and top_p it names."""


class Policies(TypedDict):
    repetition: RepetitionPolicy
    sampling: SamplingPolicy


class Capabilities(TypedDict):
    """The reply of GET /v1/capabilities."""

    model: str
    server: Server
    modalities: Modalities
    auth: Auth
    rate_limit: RateLimited
    features: Features
    parsers: Parsers
    diagnostics: Diagnostics
    limits: Limits
    runtime: Runtime
    policies: Policies


class Summary(TypedDict):
    """What most programs ask of the capabilities."""

    supports_multimodal: bool
    supports_tools: bool
    supports_structured_output: bool
    supports_reasoning: bool
    requires_api_key: bool
    context_tokens: int
    default_max_tokens: int
    default_timeout_seconds: float
    requests_per_minute: int | None


class CapabilitiesError(Exception):
    """The capabilities could not be had; the text says why in one line."""


def fetch_capabilities(url: str, api_key: str | None = None, *, timeout_s: float = 10.0) -> Capabilities:
    """Ask the server at `url`, with or without a `/v1` at its end, what it can do.

    Raises:
        CapabilitiesError: there is no server, it refuses (a wrong key, a model that still loads), or it is not Troupe.
    """
    where = url.rstrip("/").removesuffix("/v1") + "/v1/capabilities"
    if not where.startswith(("http://", "https://")):
        raise CapabilitiesError(f"{url!r} is not an http:// or https:// address")
    try:
        request = urllib.request.Request(where, headers=authorization(api_key))  # noqa: S310 (http, https)
        with OPENER.open(request, timeout=timeout_s) as reply:
            body = json.loads(reply.read(LONGEST_REPLY))
    except urllib.error.HTTPError as error:
        with error:
            raise CapabilitiesError(f"{where} answered {error.code}: {_message(error.read(LONGEST_REPLY))}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise CapabilitiesError(f"{where}: {error}") from None
    if problem := _mismatch(body, Capabilities, "the reply"):
        raise CapabilitiesError(f"{where} is not a Troupe server of this version: {problem}")
    return cast("Capabilities", body)


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that shows the key: UTF-8, in the one character per byte that urllib wants."""
    return {"Authorization": f"Bearer {api_key}".encode().decode("latin-1")} if api_key else {}


def summarize_capabilities(caps: Capabilities) -> Summary:
    """The few facts that decide how to talk to the server."""
    return {
        "supports_multimodal": caps["modalities"]["images"],
        "supports_tools": caps["features"]["tools"],
        "supports_structured_output": caps["features"]["structured_output"],
        "supports_reasoning": caps["features"]["reasoning"],
        "requires_api_key": caps["auth"]["required"],
        "context_tokens": caps["limits"]["effective_context_tokens"],
        "default_max_tokens": caps["limits"]["default_max_tokens"],
        "default_timeout_seconds": caps["limits"]["default_timeout_seconds"],
        "requests_per_minute": caps["rate_limit"]["requests_per_minute"],
    }


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The library would carry the key along to wherever it is sent."""

    def redirect_request(self, *_: object) -> None:
        return None


OPENER = urllib.request.build_opener(_NoRedirects)


def _message(body: bytes) -> str:
    """What an error envelope says, or nothing where there is none."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return "it gave no reason"


def _mismatch(value: object, kind: object, at: str) -> str | None:
    """How `value` differs from a TypedDict, a list or a class (or a union of classes); None if it does not.

    More members are no difference: a later server may say more.
    """
    if is_typeddict(kind):
        if not isinstance(value, dict):
            return f"{at} is not an object"
        hints = get_type_hints(kind)
        missing = next((f"{at} lacks {name}" for name in hints if name not in value), None)
        return missing or next(filter(None, (_mismatch(value[name], hints[name], name) for name in hints)), None)
    if get_origin(kind) is list:
        (member,) = get_args(kind)
        fits = isinstance(value, list) and all(isinstance(each, member) for each in value)
    else:
        kinds = get_args(kind) or (kind,)  # of a union, or of nothing
        fits = type(value) in kinds or (type(value) is int and float in kinds)
    return None if fits else f"{at} is {value!r}"
