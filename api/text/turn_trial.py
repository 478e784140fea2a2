"""Finds out by which tokens a model's turns end: reads its files, and tries its chat template."""

from collections.abc import Callable, Sequence
from pathlib import Path

from transformers.tokenization_utils_tokenizers import TokenizersBackend

from api.text.conversation import ChatMessage
from api.text.loading import ids_in, stop_ids_by_file
from api.text.turn_ends import TurnEnds

_ANSWER = "Seven wizards."
_TALK: tuple[ChatMessage, ...] = ({"role": "user", "content": "Who?"}, {"role": "assistant", "content": _ANSWER})
_NEXT: ChatMessage = {"role": "user", "content": "And then?"}


def turn_ends(hf: TokenizersBackend, path: Path) -> TurnEnds:
    """Of the tokeniser `hf` of the model in directory `path`. Takes some milliseconds; changes nothing."""
    own = ids_in(hf.eos_token_id)
    named = ({"tokenizer": own} if own else {}) | stop_ids_by_file(path)
    written, refusal = _written(hf) if hf.chat_template else ({}, "")
    ids = frozenset().union(*named.values(), written.values())
    names = {id: token for id in ids if (token := hf.backend_tokenizer.id_to_token(id)) is not None}
    return TurnEnds(named, names, bool(hf.chat_template), written, refusal)


def _written(hf: TokenizersBackend) -> tuple[dict[str, int], str]:
    """Both places, because some templates end a turn by the next one's beginning (GLM-4), and some only the last one by
    what the model writes (gpt-oss)."""
    written: dict[str, int] = {}
    refusal = ""
    for place, messages in (("inside", (*_TALK, _NEXT)), ("end", _TALK)):
        try:
            text = _rendered(hf, messages, prompt=place == "inside")
        # A template is a program that came with the model: it may raise anything.
        except Exception as error:
            refusal = refusal or (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            continue
        if (id := _first_token(hf, text)) is not None:
            written[place] = id
    return written, refusal if not written else ""


def _rendered(hf: TokenizersBackend, messages: Sequence[ChatMessage], *, prompt: bool) -> str:
    render: Callable[..., object] = hf.apply_chat_template
    return str(render(list(messages), tokenize=False, add_generation_prompt=prompt))


def _first_token(hf: TokenizersBackend, text: str) -> int | None:
    """The first token behind the answer that is more than blanks."""
    _, found, rest = text.rpartition(_ANSWER)
    backend = hf.backend_tokenizer
    ids = backend.encode(rest.strip(), add_special_tokens=False).ids if found else []
    return next((id for id in ids if (backend.id_to_token(id) or "").strip(" ▁ĠĊ\n")), None)
