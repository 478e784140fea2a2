"""The `diagnostics` of a reply, for clients that set `include_diagnostics`; nothing in the house routes on them."""

Json = dict[str, object]


def basic(*, prompt_tokens: int, completion_tokens: int, context_tokens: int, images: int = 0) -> Json:
    """Level `basic`: how full the context is, and how much there was to look at.

    Args:
        context_tokens: what prompt and output may hold together (ModelFacts).
    """
    used = prompt_tokens + completion_tokens
    return {
        "level": "basic",
        "context": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "used_tokens": used,
            "limit_tokens": context_tokens,
            "remaining_tokens": max(0, context_tokens - used),
            "used_fraction": round(used / context_tokens, 4),
        },
        "visual": {"images": images},
    }
