"""Small tokenisers of every kind that a chat model may come with, and model directories that hold them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from api.text.codec import HfCodec
from api.text.conversation import ChatMessage, ChatPrompt
from tests.tiny import CORPUS, IM_END, IM_START, make_tokenizer

SPECIAL = (IM_START, IM_END, "[INST]")
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
ORDINARY = ("<table>", "    ", "\n\n")
"""Added tokens that are no control tokens: markup and whitespace that a vocabulary has whole."""

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}{% if message.name %} {{ message.name }}{% endif %}"
    "{{ '\\n' + message.content }}"
    "{% for call in message.tool_calls %}<tool_call>{{ call | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}{{ note }}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def byte_level() -> Tokenizer:
    return make_tokenizer()


def sentencepiece(tokenizer: Tokenizer) -> Tokenizer:
    """Pieces of characters with bytes to fall back on, as Llama's first tokenisers were converted."""
    characters = sorted(set("".join(CORPUS)) | set("<>|[]/_▁"))
    merges = [("t", "h"), ("▁", "th"), ("th", "e"), ("▁th", "e"), ("i", "m"), ("s", "e"), ("se", "r")]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["<unk>", *bytes_, *characters, *(one + other for one, other in merges)]
    vocabulary = {piece: id for id, piece in enumerate(pieces)}
    tokenizer.model = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def prepended() -> Tokenizer:
    """A space before the text, and one before all that follows a special token: Llama 2, Mistral 7B."""
    tokenizer = sentencepiece(Tokenizer(models.BPE()))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def metaspace(scheme: str) -> Callable[[], Tokenizer]:
    def make() -> Tokenizer:
        tokenizer = sentencepiece(Tokenizer(models.BPE()))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        return tokenizer

    return make


def wordpiece() -> Tokenizer:
    """As BERT's: everything in lower case, without accents, cut at spaces and at punctuation."""
    characters = "abcdefghijklmnopqrstuvwxyz0123456789<>|[]/_.,!?:;\"'(){}+-=*&%$#@~^`\\"
    pieces = ["[UNK]", *characters, *(f"##{character}" for character in characters)]
    tokenizer = Tokenizer(models.WordPiece({piece: id for id, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "prepended": prepended,
    "metaspace-first": metaspace("first"),
    "metaspace-always": metaspace("always"),
    "wordpiece": wordpiece,
}

VERBATIM = [kind for kind in KINDS if kind != "wordpiece"]
"""Those whose ids still tell the whole text."""


@dataclass(frozen=True)
class Model:
    """A codec, and its tokeniser to see what it made."""

    codec: HfCodec
    tokenizer: Tokenizer

    @classmethod
    def of(cls, path: Path) -> "Model":
        return cls(HfCodec(path), Tokenizer.from_file(str(path / "tokenizer.json")))

    async def prompt(self, messages: Sequence[ChatMessage], **template_kwargs: object) -> ChatPrompt:
        return await self.codec.chat_prompt(messages, template_kwargs=template_kwargs)

    def structure(self, ids: Sequence[int]) -> list[str]:
        """The control tokens among `ids`, in order."""
        added = self.tokenizer.get_added_tokens_decoder()
        return [added[id].content for id in ids if id in added and added[id].content not in ORDINARY]

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))


def write_model(path: Path, tokenizer: Tokenizer, *, template: str = TEMPLATE, normalized: bool = False) -> Model:
    """A model of `tokenizer` with SPECIAL, TAGS and ORDINARY added, matched in the normalised text if `normalized`."""
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=normalized) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, normalized=normalized) for text in TAGS])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ORDINARY])
    tokenizer.save(str(path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": IM_END, "chat_template": template}
    (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return Model.of(path)
