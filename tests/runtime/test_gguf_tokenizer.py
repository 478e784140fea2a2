"""Tokenizers built from GGUF metadata cut text as the tokenizers that the metadata was made from."""

import io
from pathlib import Path

import pytest
from tokenizers import Tokenizer, pre_tokenizers

from runtime.mlx.gguf_file import Header, Value
from runtime.mlx.gguf_splitting import SPLITTINGS
from runtime.mlx.gguf_tokenizer import build_tokenizer
from tests.tiny import CORPUS, make_tiny_llama, make_tokenizer
from tests.tiny_gguf import tiny_metadata

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  two spaces, and\ttabs\n\nand lines\r\n",
    "In 1987 it cost 12,345.67 or ½ of Ⅷ, ٣٤ and 一二三.",
    "I'm sure they'd say WE'LL'VE don''t",
    "naïve café, cafe\u0301, Ångström, straße, ﬁ",
    "日本語のテキスト, 한국어, Привет, مرحبا, नमस्ते",
    "👩‍👩‍👧‍👦 🦊🔥 👍🏽 \u200b\ufeff\u00a0\u3000x",
    "def f(x):\n    return x ** 2  # {}[]()<>\\/|@~`",
    "<|im_start|>user\nHi<|im_end|>\n",
    *CORPUS,
]


def header(tmp_path: Path, **changes: Value) -> Header:
    metadata = tiny_metadata(make_tiny_llama(tmp_path / "llama"))
    return Header({**metadata, **{f"tokenizer.ggml.{key}": value for key, value in changes.items()}}, {})  # type: ignore[dict-item]


def test_a_byte_level_tokenizer_is_rebuilt_exactly(tmp_path: Path) -> None:
    original, rebuilt = make_tokenizer(), build_tokenizer(header(tmp_path))
    for text in TEXTS:
        ids = original.encode(text).ids
        assert rebuilt.encode(text).ids == ids
        assert rebuilt.decode(ids, skip_special_tokens=False) == text


def test_control_tokens_are_left_out_of_plain_text(tmp_path: Path) -> None:
    rebuilt = build_tokenizer(header(tmp_path))
    ids = rebuilt.encode("<|im_start|>user<|im_end|>").ids
    assert (ids[0], ids[-1]) == (1, 2)
    assert rebuilt.decode(ids) == "user"


def test_user_defined_tokens_are_never_cut_and_stay_in_the_text(tmp_path: Path) -> None:
    types = [4 if index == 300 else 1 for index in range(512)]
    metadata = header(tmp_path, token_type=list(types))
    token = metadata.texts("tokenizer.ggml.tokens")[300]
    rebuilt = build_tokenizer(metadata)
    assert 300 in rebuilt.encode(f"zz{token}zz").ids
    assert token in rebuilt.decode([300])


@pytest.mark.parametrize("says, begins", [(None, False), (True, True), (False, False)])
def test_a_text_begins_with_bos_if_the_file_says_so(tmp_path: Path, says: bool | None, begins: bool) -> None:
    rebuilt = build_tokenizer(header(tmp_path) if says is None else header(tmp_path, add_bos_token=says))
    assert (rebuilt.encode("Hi").ids[0] == 1) is begins
    assert rebuilt.encode("Hi", add_special_tokens=False).ids[0] != 1


def test_llama_3_texts_begin_with_bos_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    assert build_tokenizer(header(tmp_path, pre="llama-bpe")).encode("Hi").ids[0] == 1
    assert build_tokenizer(header(tmp_path, pre="llama-bpe", add_bos_token=False)).encode("Hi").ids[0] != 1


def words(tokenizer: Tokenizer, text: str) -> list[str]:
    splitter = tokenizer.pre_tokenizer
    assert isinstance(splitter, pre_tokenizers.PreTokenizer)
    return [text[start:end] for _, (start, end) in splitter.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    "pre, expected",
    [
        ("gpt-2", ["I", "'m", " 123", " o", "'", "Clock", "...", "\n\n", " x"]),
        ("smollm", ["I", "'m", " ", "1", "2", "3", " o", "'", "Clock", "...", "\n\n", " x"]),
        ("llama-bpe", ["I", "'m", " ", "123", " o", "'Clock", "...\n\n", " x"]),
        ("qwen2", ["I", "'m", " ", "1", "2", "3", " o", "'Clock", "...\n\n", " x"]),
        ("tekken", ["I", "'m", " ", "1", "2", "3", " o", "'Clock", "...\n\n", " x"]),
    ],
)
def test_words_are_split_as_the_name_says(tmp_path: Path, pre: str, expected: list[str]) -> None:
    assert words(build_tokenizer(header(tmp_path, pre=pre)), "I'm 123 o'Clock...\n\n x") == expected


@pytest.mark.parametrize("pre, ids", [("gpt-2", 5), ("llama-bpe", 1)])
def test_a_word_that_is_a_token_needs_no_merges_where_the_name_says_so(tmp_path: Path, pre: str, ids: int) -> None:
    """As in Llama 3, whose vocabulary has words that its merges do not lead to."""
    whole = header(tmp_path, pre=pre)
    assert "Ġtown" in whole.texts("tokenizer.ggml.tokens")
    few = [merge for merge in whole.texts("tokenizer.ggml.merges") if len(merge) > 8]
    rebuilt = build_tokenizer(Header({**whole.metadata, "tokenizer.ggml.merges": list(few)}, {}))
    assert len(rebuilt.encode(" town", add_special_tokens=False).ids) == ids


@pytest.mark.parametrize("pre", SPLITTINGS)
def test_every_text_comes_back_whole_however_words_are_split(tmp_path: Path, pre: str) -> None:
    rebuilt = build_tokenizer(header(tmp_path, pre=pre))
    for text in TEXTS:
        normal = rebuilt.normalizer.normalize_str(text) if rebuilt.normalizer else text
        ids = rebuilt.encode(text, add_special_tokens=False).ids
        assert rebuilt.decode(ids, skip_special_tokens=False) == normal


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
def test_a_sentencepiece_tokenizer_agrees_with_sentencepiece_itself() -> None:
    import sentencepiece

    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3),
        model_writer=trained,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    reference = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    rebuilt = build_tokenizer(Header(sentencepiece_metadata(reference), {}))
    for text in TEXTS[1:]:
        found = rebuilt.encode(text, add_special_tokens=False)
        assert found.tokens == reference.encode(text, out_type=str)
        assert rebuilt.decode(found.ids) == text
    assert rebuilt.encode("Hi").tokens[0] == "<s>"


def sentencepiece_metadata(reference: object) -> dict[str, Value]:
    """As llama.cpp writes it (1 normal, 2 unknown, 3 control, 6 byte), but from the last token to the first.

    Only the scores then tell which merge is the better one.
    """
    from sentencepiece import SentencePieceProcessor

    assert isinstance(reference, SentencePieceProcessor)
    size = reference.get_piece_size()
    ids = range(size - 1, -1, -1)
    kinds: list[Value] = [
        2 if reference.is_unknown(i) else 3 if reference.is_control(i) else 6 if reference.is_byte(i) else 1
        for i in ids
    ]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [reference.id_to_piece(i) for i in ids],
        "tokenizer.ggml.scores": [reference.get_score(i) for i in ids],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": size - 1 - reference.bos_id(),
        "tokenizer.ggml.unknown_token_id": size - 1 - reference.unk_id(),
    }
