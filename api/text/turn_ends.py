"""By which tokens a model's turns end: what its files name, and what its chat template writes behind an answer."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers.tokenization_utils_tokenizers import TokenizersBackend

from api.text.conversation import ChatMessage
from api.text.loading import ids_in

_ANSWER = "Seven wizards."
_TALK: tuple[ChatMessage, ...] = ({"role": "user", "content": "Who?"}, {"role": "assistant", "content": _ANSWER})
_NEXT: ChatMessage = {"role": "user", "content": "And then?"}


@dataclass(frozen=True, slots=True)
class TurnEnds:
    """What the stop ids of a model are taken from, and what they are good for."""

    named: Mapping[str, frozenset[int]]
    """The end-of-sequence ids by who names them: `tokenizer`, `config.json`, `generation_config.json`; those that name
    none are missing."""
    names: Mapping[int, str]
    """Of all ids in here that have a token: an id that is missing has none."""
    has_template: bool
    written: Mapping[str, int] = field(default_factory=dict)
    """The id of the first token behind an answer, blanks aside: `inside` a conversation, and at its `end`. Missing
    where the template writes nothing there, or refuses."""
    refusal: str = ""
    """The template's own words, if it refuses a user's question, an answer and another question."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """All that are named: the codec stops at each of them."""
        return frozenset().union(*self.named.values())


def turn_ends(hf: TokenizersBackend, path: Path) -> TurnEnds:
    """Of the tokeniser `hf` of the model in directory `path`. Takes some milliseconds; changes nothing."""
    named = {"tokenizer": ids_in(hf.eos_token_id)}
    named |= {name: ids_in(_eos_of(path / name)) for name in ("config.json", "generation_config.json")}
    written, refusal = _written(hf) if hf.chat_template else ({}, "")
    ids = frozenset().union(*named.values(), written.values())
    names = {id: token for id in ids if (token := hf.backend_tokenizer.id_to_token(id)) is not None}
    return TurnEnds({who: some for who, some in named.items() if some}, names, bool(hf.chat_template), written, refusal)


def _eos_of(file: Path) -> object:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return settings.get("eos_token_id") if isinstance(settings, dict) else None


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
