"""Every golden transcript means the same wherever its text is cut, to its own parser and to `auto`."""

import pytest

from api.parsers.parts import CallArguments, Content, Tool, joined
from api.parsers.plain import Reader
from api.parsers.reader import make_reader
from api.parsers.table import TOOL_FAMILIES, reasoning_family, tool_family
from tests.parsers.count import cuts, transcripts
from tests.parsers.golden import Golden, all_golden
from tests.parsers.reading import (
    DAMAGED,
    SENTINEL,
    at_random,
    check_form,
    damaged,
    forgetting_ids,
    lines,
    meaning,
    read,
    shown,
    ways,
    with_sentinel,
)

FAMILIES = {*TOOL_FAMILIES, "qwen3", "deepseek_r1"}
MOST_HELD = 40
"""Characters; longer than any marker."""

every_transcript = pytest.mark.parametrize("golden", all_golden(), ids=str)


def reader_for(golden: Golden, family: str | None = None, template: str = "", thinks: str | None = None) -> Reader:
    name = family or golden.family
    reasoning = thinks or golden.said.reasoning
    return make_reader(
        tools=None if name is None else tool_family(name, template, golden.silent),
        reasoning=None if reasoning is None else reasoning_family(reasoning, template, golden.silent),
        offered=golden.offered,
        prompt_tail=golden.said.prompt_tail,
        silent=golden.silent,
    )


@every_transcript
def test_a_transcript_means_what_its_source_says(golden: Golden) -> None:
    parts = read(reader_for(golden), [golden.said.text])

    check_form(parts)
    assert lines(meaning(parts)) == lines(golden.said.parts)


@every_transcript
def test_a_transcript_means_the_same_wherever_it_is_cut(golden: Golden) -> None:
    whole = forgetting_ids(read(reader_for(golden), [golden.said.text]))

    for pieces in ways(golden.said.text):
        parts = read(reader_for(golden), pieces)
        check_form(parts)
        assert forgetting_ids(parts) == whole, pieces


@every_transcript
def test_no_text_is_swallowed(golden: Golden) -> None:
    for text in with_sentinel(golden.said.text, step=3):
        parts = read(reader_for(golden), [text])
        check_form(parts)
        assert SENTINEL in shown(parts), text


@pytest.mark.parametrize("golden", [one for one in all_golden() if one.family], ids=str)
def test_special_tokens_never_show_in_text(golden: Golden) -> None:
    markers = tool_family(golden.family or "", "", frozenset()).markers
    reader = make_reader(
        tools=tool_family(golden.family or "", "", markers),
        reasoning=None,
        offered=(Tool("none of those that are called"),),
        prompt_tail=golden.said.prompt_tail,
        silent=markers,
    )
    for part in joined(read(reader, golden.said.text)):
        assert isinstance(part, Content)
        assert not {marker for marker in markers if marker in part.text}


@pytest.mark.parametrize("family", [*sorted(TOOL_FAMILIES), "auto"])
def test_damaged_text_is_read_the_same_wherever_it_is_cut(family: str) -> None:
    any_golden = next(one for one in all_golden() if one.said.reasoning == "qwen3")
    texts = [one.said.text for one in all_golden() if family in (one.family, "auto")]
    for seed in range(DAMAGED // len(TOOL_FAMILIES)):
        text = damaged(texts, seed)
        whole = read(reader_for(any_golden, family), [text])
        check_form(whole)
        for pieces in (text, at_random(text, seed)):
            assert forgetting_ids(read(reader_for(any_golden, family), pieces)) == forgetting_ids(whole), text


@pytest.mark.parametrize("golden", [one for one in all_golden() if one.said.streamed], ids=str)
def test_arguments_are_passed_on_while_they_come(golden: Golden) -> None:
    parts = read(reader_for(golden), golden.said.text)

    for whole in joined(parts):
        if isinstance(whole, CallArguments) and len(whole.text) >= 20:
            fragments = [part for part in parts if isinstance(part, CallArguments) and part.index == whole.index]
            assert len(fragments) > 3


@pytest.mark.parametrize("golden", [one for one in all_golden() if one.said.name == "no call"], ids=str)
def test_plain_text_is_not_held_back(golden: Golden) -> None:
    reader = reader_for(golden)
    for character in golden.said.text:
        reader.feed(character)
        assert reader.held <= MOST_HELD


@pytest.mark.parametrize("golden", [one for one in all_golden() if one.template is not None], ids=str)
def test_auto_knows_the_family_by_its_template(golden: Golden) -> None:
    read_by_auto(golden, golden.template or "")


@pytest.mark.parametrize("golden", [one for one in all_golden() if one.family and one.said.auto is True], ids=str)
def test_auto_knows_the_family_by_its_text(golden: Golden) -> None:
    read_by_auto(golden, "")


@pytest.mark.parametrize("template", ["", "{{- '<think>' }}"])
@pytest.mark.parametrize("golden", [one for one in all_golden() if one.said.reasoning], ids=str)
def test_auto_knows_the_thinking(golden: Golden, template: str) -> None:
    parts = read(reader_for(golden, template=template, thinks="auto"), golden.said.text)
    assert lines(meaning(parts)) == lines(golden.said.parts)


@pytest.mark.parametrize(
    ("family", "template"), sorted({(str(one.family), one.template) for one in all_golden() if one.template})
)
def test_auto_writes_calls_in_the_format_of_the_template(family: str, template: str) -> None:
    found, named = (tool_family(name, template, frozenset()) for name in ("auto", family))
    assert found.variants[0][0] == named.variants[0][0]


def read_by_auto(golden: Golden, template: str) -> None:
    text = golden.said.text
    for pieces in [[text], list(text), *(at_random(text, seed) for seed in range(5))]:
        parts = read(reader_for(golden, "auto", template), pieces)
        check_form(parts)
        assert lines(meaning(parts)) == lines(golden.said.parts), pieces


def test_every_family_has_a_dozen_transcripts() -> None:
    assert {family for family in FAMILIES if transcripts()[family] < 12} == set()


def test_there_are_150_transcripts_and_their_names_differ() -> None:
    assert transcripts().total() >= 150
    assert cuts() >= 50_000
    assert len({str(one) for one in all_golden()}) == transcripts().total()
