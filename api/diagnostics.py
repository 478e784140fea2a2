"""The `diagnostics` of a reply, for clients that set `include_diagnostics`; nothing in the house routes on them."""

Json = dict[str, object]


def basic(*, used_tokens: int, context_tokens: int, images: int = 0) -> Json:
    """Level `basic`: how full the context is, and how much there was to look at.

    Args:
        used_tokens: what the longest of the reply's sequences holds, prompt and output together.
        context_tokens: what a sequence may hold (ModelFacts).
    """
    return {
        "level": "basic",
        "context": {
            "used_tokens": used_tokens,
            "limit_tokens": context_tokens,
            "remaining_tokens": max(0, context_tokens - used_tokens),
            "used_fraction": round(used_tokens / context_tokens, 4),
        },
        "visual": {"images": images},
    }
