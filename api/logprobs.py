"""How log-probabilities are written: OpenAI's form for chat, and its older one for completions."""

from collections.abc import Sequence

from api.text.choice import ScoredToken
from api.text.codec import TextCodec
from runtime.types import TokenOutput


def chat_logprobs(scored: Sequence[ScoredToken], codec: TextCodec) -> dict[str, list[dict[str, object]] | None]:
    """`logprobs` of a chat choice."""
    content = [
        {
            **_entry(each.token.token_id, each.token.logprob, codec),
            "top_logprobs": [_entry(token_id, logprob, codec) for token_id, logprob in each.token.top_logprobs],
        }
        for each in scored
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(scored: Sequence[ScoredToken], codec: TextCodec) -> dict[str, object] | None:
    """`logprobs` of a completion choice: the token itself is among `top_logprobs`, even if it is not at the top. The
    first token of a prompt has neither."""
    if not scored:
        return None
    return {
        "tokens": [_name(each.token.token_id, codec) for each in scored],
        "token_logprobs": [each.token.logprob for each in scored],
        "top_logprobs": [_by_name(each.token, codec) for each in scored],
        "text_offset": [each.offset for each in scored],
    }


def echoed(prompt: Sequence[TokenOutput], echo: str, codec: TextCodec) -> list[ScoredToken]:
    """A prompt's tokens, each beside its text in the echo. Special tokens have none, unless it is spelt out there."""
    spelt = frozenset(
        token_id
        for token_id in {token.token_id for token in prompt}
        if codec.token_bytes(token_id).decode(errors="replace") in echo
    )
    detokeniser = codec.detokeniser(spelt)
    offset, scored = 0, []
    for token in prompt:
        scored.append(ScoredToken(token, min(offset, len(echo))))
        offset += len(detokeniser.feed(token.token_id))
    return scored


def _by_name(token: TokenOutput, codec: TextCodec) -> dict[str, float] | None:
    """The likeliest in a token's place and itself; of two that read the same, the likelier one."""
    if token.logprob is None:
        return None
    found: dict[str, float] = {}
    for token_id, logprob in (*token.top_logprobs, (token.token_id, token.logprob)):
        found.setdefault(_name(token_id, codec), logprob)
    return found


def _entry(token_id: int, logprob: float | None, codec: TextCodec) -> dict[str, object]:
    return {"token": _name(token_id, codec), "bytes": list(codec.token_bytes(token_id)), "logprob": logprob}


def _name(token_id: int, codec: TextCodec) -> str:
    """A token's text, or its bytes as `\\xe2\\x82` if they are no text by themselves."""
    return codec.token_bytes(token_id).decode("utf-8", errors="backslashreplace")
