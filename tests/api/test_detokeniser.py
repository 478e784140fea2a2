"""Detokenisers: the pieces together are the whole text, for any ids, be they text or not."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from api.text.codec import HfCodec
from tests.tiny import make_tokenizer

BYTE_LEVEL = make_tokenizer()
BYTE_FALLBACK_SPECIALS = ["<unk>", "<s>", "</s>"]


def sentencepiece_tokenizer(*, strips_first_space: bool) -> Tokenizer:
    """As Llama 2's and, without the strip, Gemma's: words with ▁ for the space, and one token for every byte."""
    tokens = [*BYTE_FALLBACK_SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab", "�"]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "a"), ("a", "b")], byte_fallback=True, unk_token="<unk>"))
    strip = [decoders.Strip(" ", 1, 0)] if strips_first_space else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in BYTE_FALLBACK_SPECIALS])
    return tokenizer


def save(tokenizer: Tokenizer, path: Path) -> HfCodec:
    tokenizer.save(str(path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return HfCodec(path)


@pytest.fixture(scope="module", params=[True, False])
def fallback_codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HfCodec:
    path = tmp_path_factory.mktemp("fallback")
    return save(sentencepiece_tokenizer(strips_first_space=request.param), path)


def pieces(codec: HfCodec, ids: list[int]) -> list[str]:
    detokeniser = codec.detokeniser()
    return [*(detokeniser.feed(token_id) for token_id in ids), detokeniser.finish()]


EMOJI = "👩‍👩‍👧 naïve café 日本語 \u202bשלום"


@given(st.lists(st.integers(0, 511), max_size=60))
@example(BYTE_LEVEL.encode(EMOJI).ids)
@example([3 + 0xC3, 3 + 0x28, 3 + 0xE2, 3 + 0x82])
def test_byte_level_pieces_make_the_whole_text(codec: HfCodec, ids: list[int]) -> None:
    assert "".join(pieces(codec, ids)) == BYTE_LEVEL.decode(ids, skip_special_tokens=True)


@given(st.text(max_size=30), st.integers(0, 200))
def test_a_text_cut_anywhere_shows_no_half_character_before_its_end(codec: HfCodec, text: str, length: int) -> None:
    ids = BYTE_LEVEL.encode(text).ids[:length]
    shown = "".join(pieces(codec, ids)[:-1])
    assert text.startswith(shown)


id_of = sentencepiece_tokenizer(strips_first_space=True).get_vocab().__getitem__
byte_runs = st.lists(
    st.one_of(
        st.sampled_from([1, 2, *range(259, 265)]),
        st.integers(0, 700),
        st.sampled_from([3 + byte for byte in "é🦊".encode()]),
    ),
    max_size=40,
)


@given(byte_runs)
@example([id_of("▁"), id_of("▁a"), id_of("b")])
@example([id_of("<s>"), id_of("▁a")])
@example([*(3 + byte for byte in "🦊".encode()), id_of("<s>"), 3 + 0xFF, id_of("a")])
@example([id_of("a"), *(3 + byte for byte in "🦊".encode()[:3])])
def test_byte_fallback_pieces_make_the_whole_text(fallback_codec: HfCodec, ids: list[int]) -> None:
    assert "".join(pieces(fallback_codec, ids)) == fallback_codec.text_of(ids)


def test_a_fox_in_four_byte_tokens_comes_out_whole_once_the_next_token_shows_it_is_complete(
    fallback_codec: HfCodec,
) -> None:
    ids = [id_of("a"), *(3 + byte for byte in "🦊".encode()), id_of("▁a")]
    assert pieces(fallback_codec, ids) == ["a", "", "", "", "", "🦊 a", ""]


def test_a_replacement_character_that_the_model_means_is_not_held_for_ever(fallback_codec: HfCodec) -> None:
    shown = "".join(pieces(fallback_codec, [id_of("�")] * 40)[:-1])
    assert 20 < len(shown) <= 40


def test_twenty_thousand_bytes_that_are_no_text_are_as_many_replacement_characters(
    codec: HfCodec, fallback_codec: HfCodec
) -> None:
    for each in (codec, fallback_codec):
        lone = next(id for id in range(600) if each.token_bytes(id) == b"\x80")
        assert "".join(pieces(each, [lone] * 20_000)) == "\ufffd" * 20_000
