"""ChoiceText: tokens in, safe text out, and every log-probability beside the text it belongs to."""

from hypothesis import given
from hypothesis import strategies as st

from api.parsers.parts import Content
from api.text.choice import ChoiceText, Piece
from api.text.codec import HfCodec
from runtime.types import TokenOutput
from tests.api.fakes import END_ID, TOKENIZER, ids_of


def scored(text: str) -> list[TokenOutput]:
    return [TokenOutput(token_id, -float(position)) for position, token_id in enumerate(ids_of(text))]


def text_of(piece: Piece) -> str:
    return "".join(part.text for part in piece.parts if isinstance(part, Content))


def shown(piece: Piece) -> list[tuple[str, int]]:
    """The scored tokens of a piece: text and offset."""
    return [(TOKENIZER.decode([each.token.token_id]), each.offset) for each in piece.scored]


def test_scored_tokens_go_out_with_their_text(codec: HfCodec) -> None:
    choice = ChoiceText(codec, [])
    piece = choice.feed(scored("Hello world."))
    assert text_of(piece) == "Hello world."
    assert shown(piece) == [("H", 0), ("ell", 1), ("o", 4), (" wor", 5), ("l", 9), ("d", 10), (".", 11)]


def test_a_scored_token_waits_until_its_text_is_safe(codec: HfCodec) -> None:
    choice = ChoiceText(codec, ["world!"])
    first = choice.feed(scored("Hello world"))
    assert (text_of(first), shown(first)[-1]) == ("Hello ", ("o", 4))
    rest = choice.feed(scored("."))
    assert text_of(rest) == "world."
    assert shown(rest) == [(" wor", 5), ("l", 9), ("d", 10), (".", 11)]


def test_the_parts_of_one_character_go_out_together(codec: HfCodec) -> None:
    choice = ChoiceText(codec, [])
    *parts, last = scored("🦊")
    assert all(choice.feed([part]) == Piece() for part in parts)
    piece = choice.feed([last])
    assert text_of(piece) == "🦊"
    assert [each.offset for each in piece.scored] == [0, 0, 0, 0]


def test_scored_tokens_behind_a_stop_string_are_dropped_and_the_one_it_cuts_is_kept(codec: HfCodec) -> None:
    choice = ChoiceText(codec, ["rld"])
    piece = choice.feed(scored("Hello world. More"))
    assert (text_of(piece), choice.stop_string) == ("Hello wo", "rld")
    assert shown(piece) == [("H", 0), ("ell", 1), ("o", 4), (" wor", 5)]
    assert choice.finish() == Piece()


def test_tokens_are_counted_up_to_the_one_that_completes_the_stop_string(codec: HfCodec) -> None:
    choice = ChoiceText(codec, ["world"])
    choice.feed(scored("Hello world. And so on, for a long time."))
    assert choice.tokens == len(ids_of("Hello world"))


def test_the_end_of_sequence_token_is_counted_and_never_shown(codec: HfCodec) -> None:
    choice = ChoiceText(codec, [])
    piece = choice.feed([*scored("Hello"), TokenOutput(END_ID, -0.5)])
    assert (text_of(piece), len(piece.scored), choice.tokens) == ("Hello", 3, 4)
    assert choice.finish() == Piece()


def test_what_was_held_back_comes_out_in_the_end(codec: HfCodec) -> None:
    choice = ChoiceText(codec, ["world!"])
    choice.feed(scored("Hello world"))
    half_fox = scored("🦊")[:2]
    assert choice.feed(half_fox) == Piece()
    rest = choice.finish()
    assert text_of(rest) == "world\ufffd"
    assert [each.offset for each in rest.scored] == [5, 9, 10, 11, 11]


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=3), max_size=3), st.lists(st.integers(1, 5)))
def test_text_and_scores_do_not_depend_on_how_tokens_are_grouped(
    codec: HfCodec, text: str, stops: list[str], sizes: list[int]
) -> None:
    tokens = scored(text)
    at_once, in_groups = ChoiceText(codec, stops), ChoiceText(codec, stops)
    expected = [at_once.feed(tokens), at_once.finish()]
    got = []
    for size in [*sizes, len(tokens)]:
        got.append(in_groups.feed(tokens[:size]))
        tokens = tokens[size:]
    got.append(in_groups.finish())
    assert "".join(text_of(piece) for piece in got) == "".join(text_of(piece) for piece in expected)
    assert [each for piece in got for each in piece.scored] == [each for piece in expected for each in piece.scored]
