"""How log-probabilities are written: OpenAI's form for chat, and its older one for completions."""

from collections.abc import Sequence

from api.text.choice import ScoredToken
from api.text.codec import TextCodec


def chat_logprobs(scored: Sequence[ScoredToken], codec: TextCodec) -> dict[str, object] | None:
    """`logprobs` of a chat choice; None if nothing is scored."""
    if not scored:
        return None
    content = [
        {
            **_entry(each.token.token_id, each.token.logprob, codec),
            "top_logprobs": [_entry(token_id, logprob, codec) for token_id, logprob in each.token.top_logprobs],
        }
        for each in scored
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(scored: Sequence[ScoredToken], codec: TextCodec) -> dict[str, object] | None:
    """`logprobs` of a completion choice: the chosen token is among `top_logprobs`, even if it is not at the top."""
    if not scored:
        return None
    return {
        "tokens": [_name(each.token.token_id, codec) for each in scored],
        "token_logprobs": [each.token.logprob for each in scored],
        "top_logprobs": [
            {
                **{_name(token_id, codec): logprob for token_id, logprob in each.token.top_logprobs},
                _name(each.token.token_id, codec): each.token.logprob,
            }
            for each in scored
        ],
        "text_offset": [each.offset for each in scored],
    }


def _entry(token_id: int, logprob: float | None, codec: TextCodec) -> dict[str, object]:
    return {"token": _name(token_id, codec), "bytes": list(codec.token_bytes(token_id)), "logprob": logprob}


def _name(token_id: int, codec: TextCodec) -> str:
    """A token's text, or its bytes as `\\xe2\\x82` if they are no text by themselves."""
    return codec.token_bytes(token_id).decode("utf-8", errors="backslashreplace")
