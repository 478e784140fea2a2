"""When a text that goes round in circles is ended; in tokens of no model: words, with their space, and single signs."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.parsers.parts import Content
from api.text.choice import ChoiceText
from api.text.codec import HfCodec
from api.text.loops import EVERY, WINDOW, RepetitionWatch, Track
from api.text.periods import KEY, Run, runs
from api.text.repetition import Nature, Prompt, RepetitionTrigger, holds_turned, nature, numbers, whole_words
from runtime.types import RepetitionPolicy, TokenOutput
from tests.api.fakes import TOKENIZER, ids_of
from tests.repetition.tables import all_texts
from tests.repetition.text import Kind, Text

SAFE, STRICT = RepetitionPolicy
TOKEN = re.compile(r"\d| {2,16}| ?[^\W\d]{1,12}|\s|[^\w\s]|_")
MOST = 4500
"""Tokens of a text that are looked at."""

NOT_BY_STRICT = re.compile(r"loop: four lines|heard: (Explain how a car|Summarise the plot)")
NOT_BY_SAFE = re.compile(
    rf"{NOT_BY_STRICT.pattern}|loop: one letter|heard: (List all|Draw|Write an HTML|import|Chapter|Plan"
    "|Prove|Why is|User|Write a bash|Make a table|SELECT|Monday)"
)
"""Loops of which there is not enough to say: of words or counted ones less than what a prompt may ask for, of code and
figures less than what somebody may want."""


def ended(text: str, policy: RepetitionPolicy, prompt: str = "") -> tuple[int, RepetitionTrigger] | None:
    """After how many tokens a text is ended, and for what."""
    watch, known = RepetitionWatch(policy, lambda: prompt), dict[str, int]()
    for count, token in enumerate(TOKEN.findall(text)[:MOST], 1):
        if trigger := watch.take(known.setdefault(token, len(known)), token):
            return count, trigger
    return None


def of(kind: Kind) -> list[Text]:
    return [text for text, _ in all_texts() if text.kind is kind]


@pytest.mark.parametrize("text", of(Kind.FINE), ids=lambda text: text.name)
def test_no_policy_ends_what_is_fine(text: Text) -> None:
    assert ended(text.text, SAFE, text.prompt) is None
    assert ended(text.text, STRICT, text.prompt) is None


@pytest.mark.parametrize("text", of(Kind.WANTED), ids=lambda text: text.name)
def test_safe_does_not_end_what_somebody_may_want(text: Text) -> None:
    assert ended(text.text, SAFE, text.prompt) is None


@pytest.mark.parametrize("text", of(Kind.LOOP), ids=lambda text: text.name)
def test_a_loop_is_ended_if_there_is_enough_of_it(text: Text) -> None:
    assert bool(ended(text.text, SAFE, text.prompt)) is not bool(NOT_BY_SAFE.match(text.name))
    assert bool(ended(text.text, STRICT, text.prompt)) is not bool(NOT_BY_STRICT.match(text.name))


@pytest.mark.parametrize(
    ("text", "trigger"),
    [
        (" the" * 500, RepetitionTrigger.TOKEN_LOOP),
        (" and so on and on" * 200, RepetitionTrigger.PHRASE_LOOP),
        ("Say it again to me\n" * 200, RepetitionTrigger.LINE_LOOP),
        ("".join(f"{n}. Say it again to me.\n" for n in range(200)), RepetitionTrigger.COUNTED_LOOP),
        ("\n \n\n" * 400, RepetitionTrigger.BLANK_LOOP),
    ],
)
def test_the_trigger_says_what_goes_round(text: str, trigger: RepetitionTrigger) -> None:
    found = ended(text, SAFE)
    assert found is not None
    assert found[1] is trigger


def test_a_few_sentences_in_any_order_are_a_loop_too() -> None:
    orders = ("This is one of them. ", "That is another of them. ")
    text = "".join(orders[n * n % 7 % 2] + orders[n % 3 % 2] for n in range(80))
    found = ended(text, SAFE)
    assert found is not None
    assert found[1] in (RepetitionTrigger.SENTENCE_LOOP, RepetitionTrigger.PHRASE_LOOP)


def test_strict_ends_a_word_that_is_said_fifty_times_and_safe_does_not() -> None:
    text, prompt = "banana " * 50, "Repeat the word banana 50 times."
    assert ended(text, STRICT, prompt)
    assert ended(text, SAFE, prompt) is None


def test_safe_has_more_patience_with_what_the_prompt_says() -> None:
    text = " I shall be good" * 600
    unasked, asked = ended(text, SAFE, "Hello"), ended(text, SAFE, "Write a hundred times: i shall be GOOD!")
    assert unasked
    assert asked
    assert 2 * unasked[0] < asked[0]
    assert ended(text, STRICT, "I shall be good") == ended(text, STRICT, "Hello")


def test_a_prompt_is_read_only_when_something_repeats_itself() -> None:
    watch = RepetitionWatch(SAFE, lambda: pytest.fail("nothing repeats itself"))
    assert all(watch.take(n, f" {chr(97 + n % 26)}{n}") is None for n in range(5 * WINDOW))


def test_a_loop_that_is_longer_than_the_window_is_followed_by_counting_on() -> None:
    track = Track()
    for n in range(4 * WINDOW):
        track.add("abc"[n % 3], "")
        if n % EVERY == EVERY - 1:
            *_, last = track.look()
    assert last == Run(3, 4 * WINDOW)


def test_circles_within_circles_are_found() -> None:
    row = "0" * 30 + "\n"
    assert list(runs("abc" + row * 9 + "0" * 15)) == [Run(1, 15), Run(31, 9 * 31 + 15)]


@given(st.text("ab", max_size=20), st.text("abc", min_size=1, max_size=9), st.integers(3, 30))
def test_the_runs_are_those_that_comparing_one_by_one_finds(before: str, unit: str, times: int) -> None:
    symbols = before + unit * times
    found = list(runs(symbols))
    for run in found:
        assert run.extent == slow_extent(symbols, run.period)
    longest = max((slow_extent(symbols, period) for period in range(1, len(unit) + 1)), default=0)
    if longest >= max(3 * len(unit), KEY + len(unit)):
        assert longest in [run.extent for run in found]


def slow_extent(symbols: str, period: int) -> int:
    extent = min(period, len(symbols))
    while extent < len(symbols) and symbols[-extent - 1] == symbols[-extent - 1 + period]:
        extent += 1
    return extent


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (" \n", Nature.BLANK),
        ("", Nature.BLANK),
        ("-", Nature.SIGNS),
        ("🎉", Nature.SIGNS),
        ("0, ", Nature.FIGURES),
        ("ha", Nature.FIGURES),
        ("| open | yes |\n", Nature.CODE),
        ("    return x;\n", Nature.CODE),
        ('"a":1,', Nature.FIGURES),
        ("n. I am the best.\n1", Nature.WORDS),
        (" the", Nature.WORDS),
        ("我们需要。", Nature.WORDS),
    ],
)
def test_what_a_text_is_made_of(unit: str, expected: Nature) -> None:
    assert nature(unit) is expected


def test_a_unit_may_begin_within_a_word() -> None:
    assert sorted(whole_words("ana split ban")) == ["banana", "split"]
    assert Prompt(lambda: "Say: Banana split!").says("ana split ban")
    assert not Prompt(lambda: "Say: split the bananas").says("ana split ban")


@given(st.lists(st.sampled_from("ab"), max_size=12), st.lists(st.sampled_from("ab"), min_size=1, max_size=6))
def test_a_circle_is_found_wherever_it_is_cut(text: list[str], words: list[str]) -> None:
    turned = [words[at:] + words[:at] for at in range(len(words))]
    places = range(len(text) - len(words) + 1)
    there = any(text[at : at + len(words)] in turned for at in places)
    assert holds_turned(f" {' '.join(text)} ", words) is there


def test_a_long_circle_is_compared_with_a_long_prompt_at_once() -> None:
    words = [f"w{n}" for n in range(20_000)]
    started_at = time.thread_time()
    assert holds_turned(f" {' '.join(words[7:] + words[:7])} ", words)
    assert not holds_turned(" a" * 200_000 + " ", ["a"] * 10_000 + ["b"])
    assert time.thread_time() - started_at < 0.5


def test_what_the_prompt_says_may_be_counted() -> None:
    prompt = Prompt(lambda: "Write 300 times: I will not talk.")
    assert prompt.says("7. I will not talk.\n17", counted=True)
    assert not prompt.says("7. I will not talk.\n17")


@pytest.mark.parametrize(
    ("unit", "expected"), [("3 is 1.5.\n1", 2), ("Step 12.\n", 1), ("2. So it is.\n1", 1), ("no", 0)]
)
def test_the_numbers_of_a_round_are_counted_wherever_it_begins(unit: str, expected: int) -> None:
    assert numbers(unit) == expected


def test_what_was_held_back_for_a_stop_string_is_let_through_with_the_end(codec: HfCodec) -> None:
    choice = ChoiceText(codec, ["word. That"], watch=RepetitionWatch(STRICT, str))
    tokens = [TokenOutput(token_id, -1.0) for token_id in ids_of("The word. " * 200)]
    piece = choice.feed(tokens)
    said = "".join(part.text for part in piece.parts if isinstance(part, Content))
    assert choice.repetition
    assert choice.stopped
    assert EVERY < choice.tokens < len(tokens)
    assert said == TOKENIZER.decode([token.token_id for token in tokens[: choice.tokens]])
    assert [each.token for each in piece.scored] == tokens[: choice.tokens]
    assert choice.feed(tokens).parts == choice.finish().parts == ()
