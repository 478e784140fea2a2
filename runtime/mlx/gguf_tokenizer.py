"""Builds the tokenizer that a GGUF file describes in its metadata, as Hugging Face's `tokenizers` writes it."""

from enum import IntEnum

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from runtime.errors import ModelError
from runtime.mlx.gguf_file import Header
from runtime.mlx.gguf_splitting import SPLITTINGS, Splitting

SPACE = "▁"
"""How SentencePiece writes a space."""


class TokenType(IntEnum):
    """Entries of `tokenizer.ggml.token_type` that mean something special."""

    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4


def build_tokenizer(header: Header) -> Tokenizer:
    """Raises ModelError for a kind of tokenizer, or a way of splitting words, that is not known here."""
    model = header.text("tokenizer.ggml.model")
    if model == "gpt2":
        splitting = _splitting(header)
        tokenizer = _byte_level(header, splitting)
        adds_bos = splitting.adds_bos
    elif model == "llama":
        tokenizer = _sentencepiece(header)
        adds_bos = True
    else:
        raise ModelError(f"its tokenizer is of the kind {model}; only gpt2 and llama are supported")
    _add_special_tokens(tokenizer, header)
    if header.metadata.get("tokenizer.ggml.add_bos_token", adds_bos):
        _put_bos_first(tokenizer, header)
    return tokenizer


def _splitting(header: Header) -> Splitting:
    name = header.text("tokenizer.ggml.pre")
    if name not in SPLITTINGS:
        raise ModelError(f"its tokenizer splits words as {name} does; only {', '.join(SPLITTINGS)} are supported")
    return SPLITTINGS[name]


def _byte_level(header: Header, splitting: Splitting) -> Tokenizer:
    vocabulary = _vocabulary(header)
    merges = [_halves(merge, vocabulary) for merge in header.texts("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=splitting.whole_words))
    steps: list[pre_tokenizers.PreTokenizer] = []
    if splitting.lone_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if splitting.pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(splitting.pattern), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splitting.pattern is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    if splitting.composes:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _halves(merge: str, vocabulary: dict[str, int]) -> tuple[str, str]:
    """What a line of the merges joins; checked here because `tokenizers` panics at a merge of unknown tokens."""
    left, _, right = merge.partition(" ")
    if not {left, right, left + right} <= vocabulary.keys():
        raise ModelError(f"its tokenizer has a merge of tokens it does not have: {merge!r}")
    return left, right


def _sentencepiece(header: Header) -> Tokenizer:
    """SentencePiece's BPE: no words, spaces are characters, what is not in the vocabulary becomes bytes.

    As in llama.cpp, every text between two special tokens is given a leading space (unless the file says no).
    """
    vocabulary = _vocabulary(header)
    unknown = token_under(header, "tokenizer.ggml.unknown_token_id", 0)
    merges = _merges_by_score(header, vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces: normalizers.Normalizer = normalizers.Replace(" ", SPACE)
    decoding: list[decoders.Decoder] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if header.metadata.get("tokenizer.ggml.add_space_prefix", True):
        spaces = normalizers.Sequence([normalizers.Prepend(SPACE), spaces])
        decoding.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = spaces
    tokenizer.decoder = decoders.Sequence(decoding)
    return tokenizer


def _merges_by_score(header: Header, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """SentencePiece stores no merges: any two tokens merge if the whole is a token, the best score first."""
    merges = [
        (score, token[:cut], token[cut:])
        for token, score in zip(vocabulary, _numbers_by_token(header, "scores"), strict=True)
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    merges.sort(key=lambda merge: merge[0], reverse=True)
    return [(left, right) for _, left, right in merges]


def _vocabulary(header: Header) -> dict[str, int]:
    tokens = header.texts("tokenizer.ggml.tokens")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ModelError("its tokenizer has the same token twice")
    return vocabulary


def _numbers_by_token(header: Header, name: str) -> list[int | float]:
    numbers = header.numbers(f"tokenizer.ggml.{name}")
    if len(numbers) != len(header.texts("tokenizer.ggml.tokens")):
        raise ModelError(f"its tokenizer has not as many entries under {name} as it has tokens")
    return numbers


def _add_special_tokens(tokenizer: Tokenizer, header: Header) -> None:
    """Control tokens can be left out when decoding; they and user-defined ones are found in a text whole."""
    special: dict[float, bool] = {TokenType.UNKNOWN: True, TokenType.CONTROL: True, TokenType.USER_DEFINED: False}
    types = zip(header.texts("tokenizer.ggml.tokens"), _numbers_by_token(header, "token_type"), strict=True)
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False, special=special[kind]) for token, kind in types if kind in special]
    )


def _put_bos_first(tokenizer: Tokenizer, header: Header) -> None:
    bos = token_under(header, "tokenizer.ggml.bos_token_id")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def token_under(header: Header, key: str, default: int | None = None) -> str:
    """The token whose id stands under `key`; ModelError where there is none."""
    index, tokens = header.integer(key, default), header.texts("tokenizer.ggml.tokens")
    if not 0 <= index < len(tokens):
        raise ModelError(f"the token id under {key} is out of range: {index}")
    return tokens[index]
