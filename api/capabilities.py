"""GET /v1/capabilities: what the server can do as it is set up now, so that programs need not try."""

from api.capabilities_client import Capabilities, Features, Limits
from api.repetition import trusted
from runtime import __version__
from runtime.settings import Settings
from runtime.types import ModelFacts, RepetitionPolicy


def capabilities(settings: Settings, model_id: str, facts: ModelFacts) -> Capabilities:
    """See Capabilities; every word of it is what happens."""
    return {
        "model": model_id,
        "server": {"name": "troupe", "version": __version__},
        "modalities": {"text": True, "images": False, "embeddings": False},
        "auth": {"required": settings.api_key is not None, "schemes": ["bearer", "x-api-key"]},
        "rate_limit": {"enabled": settings.rate_limit > 0, "requests_per_minute": settings.rate_limit or None},
        "features": _features(settings),
        "parsers": {"tool_call": settings.tool_parser, "reasoning": settings.reasoning_parser},
        "diagnostics": {"levels": ["basic", "deep"], "default_level": "basic"},
        "limits": _limits(settings, facts),
        "runtime": {"mode": settings.mode.value, "mode_threshold": settings.runtime_mode_threshold},
        "policies": {
            "repetition": {
                "default_mode": settings.repetition_policy.value,
                "supported_modes": [policy.value for policy in RepetitionPolicy],
                "request_override": trusted(settings),
            },
            "sampling": {"greedy_forced": settings.deterministic},
        },
    }


def _features(settings: Settings) -> Features:
    return {
        "streaming": True,
        "logprobs": True,
        "prefix_cache": _keeps_prefixes(settings),
        "tools": settings.tool_parser is not None,
        "structured_output": True,
        "reasoning": settings.reasoning_parser is not None,
        "request_diagnostics": True,
        "strict_model_id": settings.strict_model_id,
        "metrics": settings.enable_metrics,
        "deterministic": settings.deterministic,
        "batch_invariant": settings.batch_invariant,
    }


def _keeps_prefixes(settings: Settings) -> bool:
    if settings.cache_memory_mb is None:
        return settings.cache_memory_percent > 0
    return settings.cache_memory_mb > 0


def _limits(settings: Settings, facts: ModelFacts) -> Limits:
    return {
        "declared_context_tokens": facts.declared_context_tokens,
        "effective_context_tokens": facts.context_tokens,
        "default_max_tokens": min(settings.max_tokens, facts.context_tokens),
        "default_timeout_seconds": float(settings.timeout),
        "max_thinking_tokens": settings.max_thinking_tokens,
        "max_body_bytes": int(settings.max_body_mb * 2**20),
        "max_concurrency": settings.max_concurrency if facts.batchable else 1,
        "max_queue_size": settings.queue_size,
    }
