"""What readers owe besides understanding: they pass on at once, tell what they hold, and take linear time."""

import itertools
import json
import re
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.parsers.calls import is_object
from api.parsers.parts import CallArguments, CallClosed, CallOpened, Content, Part, Thinking, Tool, joined
from api.parsers.plain import Reader
from api.parsers.reader import make_reader
from api.parsers.table import TOOL_FAMILIES, reasoning_family, tool_family
from api.parsers.tape import Stops

TOOL = Tool("f", None, {"type": "object", "properties": {"text": {"type": "string"}, "n": {"type": "integer"}}})
CALL = '<tool_call>\n{"name": "f", "arguments": {"n": 1}}\n</tool_call>'


def reader(
    family: str | None = "hermes",
    reasoning: str | None = None,
    tail: str = "",
    silent: frozenset[str] = frozenset(),
    offered: Sequence[Tool] = (TOOL,),
    mint: Callable[[], str] | None = None,
) -> Reader:
    return make_reader(
        tools=tool_family(family, "", ()) if family else None,
        reasoning=reasoning_family(reasoning, "", ()) if reasoning else None,
        offered=offered,
        prompt_tail=tail,
        silent=silent,
        mint=mint,
    )


def parts_of(made: Reader, text: str) -> list[Part]:
    return list(joined([*(part for character in text for part in made.feed(character)), *made.finish()]))


def test_content_comes_at_once_but_for_what_may_begin_a_marker() -> None:
    made = reader()

    assert made.feed("Hello <tool") == [Content("Hello ")]
    assert made.held == 5
    assert made.feed("s>") == [Content("<tools>")]
    assert made.held == 0


def test_arguments_come_character_by_character() -> None:
    made = reader(mint=lambda: "id")
    made.feed('<tool_call>\n{"name": "f", "arguments": ')

    assert made.held == len('<tool_call>\n{"name": "f", "arguments": ')
    assert made.feed("{") == [CallOpened(0, "id", "f"), CallArguments(0, "{")]
    assert [made.feed(c) for c in '"n"'] == [[CallArguments(0, c)] for c in '"n"']
    assert made.held == 0
    assert made.feed(": 1}}") == [CallArguments(0, ": 1}"), CallClosed(0)]


@pytest.mark.parametrize(
    ("family", "before"),
    [
        ("qwen", "<tool_call>\n<function=f>\n<parameter=text>\n"),
        ("glm47", "<tool_call>f<arg_key>text</arg_key><arg_value>"),
        ("deepseek", '<｜DSML｜function_calls><｜DSML｜invoke name="f"><｜DSML｜parameter name="text" string="true">'),
        ("llama", "[f(text='"),
    ],
)
def test_strings_that_are_not_json_stream_too(family: str, before: str) -> None:
    made = reader(family)
    made.feed(before)

    assert made.feed('say "hi"') == [CallArguments(0, 'say \\"hi\\"')]
    assert made.held == 0


def test_ids_are_minted_as_the_family_wants_them() -> None:
    def ids(family: str, text: str, mint: Callable[[], str] | None = None) -> str:
        return " ".join(part.id for part in parts_of(reader(family, mint=mint), text) if isinstance(part, CallOpened))

    numbers = itertools.count()
    assert ids("hermes", CALL + CALL, lambda: f"id{next(numbers)}") == "id0 id1"
    assert re.fullmatch("call_[0-9a-f]{24}", ids("hermes", CALL))
    assert re.fullmatch("[0-9a-zA-Z]{9}", ids("mistral", "[TOOL_CALLS]f[ARGS]{}"))
    assert ids("mistral", "[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{}") == "abc123def"
    assert ids("kimi", "<|tool_call_begin|>functions.f:7<|tool_call_argument_begin|>{}") == "functions.f:7"


def test_a_tool_that_was_not_offered_is_content_and_any_name_goes_if_none_was() -> None:
    text = CALL.replace('"f"', '"g"')

    assert parts_of(reader(), text) == [Content(text)]
    assert isinstance(parts_of(reader(offered=()), text)[0], CallOpened)


@pytest.mark.parametrize("text", ['{"name": "Bob", "arguments": {}}', '[{"name": "Bob", "arguments": {}}]', "[f(n=1)]"])
def test_nothing_without_a_marker_is_a_call_if_no_tool_is_known(text: str) -> None:
    assert parts_of(reader("llama", offered=()), text) == [Content(text)]
    assert parts_of(reader("auto", offered=()), text) == [Content(text)]


def test_json_that_is_no_call_streams_as_soon_as_that_is_known() -> None:
    made = reader("llama")

    assert made.feed('{"name": ') == []
    assert made.feed('"Bob", ') == [Content('{"name": "Bob", ')]


def test_markers_that_are_special_tokens_never_show() -> None:
    silent = frozenset(("<tool_call>", "</tool_call>"))

    assert parts_of(reader(silent=silent), "a<tool_call>b</tool_call>c") == [Content("abc")]
    assert parts_of(reader(None, silent=silent), "a<tool_call>b") == [Content("ab")]
    assert parts_of(reader(None, "qwen3", silent=silent), "<think>a<tool_call>b</think>c") == [
        Thinking("ab"),
        Content("c"),
    ]


def test_the_prompt_may_have_opened_the_call() -> None:
    parts = parts_of(reader("functionary", tail="assistant<|end_header_id|>\n\n>>>"), 'f\n{"n": 1}>>>all\nDone >>> x')
    text = [part.text for part in parts if isinstance(part, CallArguments | Content)]

    assert text == ['{"n": 1}', "Done >>> x"]
    made = reader("functionary", tail=">>>")
    assert made.feed("Hel") == []
    assert made.held == 3
    assert made.feed("lo!") == [Content("Hello!")]


def test_there_may_be_any_number_of_calls() -> None:
    one = '{"name": "f", "arguments": {"n": 1}}'
    parts = parts_of(reader("nemotron"), f"<TOOLCALL>[{', '.join([one] * 2000)}]</TOOLCALL>")

    assert len(parts) == 3 * 2000
    assert sum(isinstance(part, CallClosed) for part in parts) == 2000


@pytest.mark.parametrize(
    ("envelope", "content"),
    [
        ('{"id": "x", "name": "f", "arguments": {"n": 1}, "type": "function"}', []),
        ('{"arguments": {"n": 1}, "name": "f", "id": [1, "}"]}', []),
        ('{"type": "function", "arguments": "{\\"n\\": 1}", "name": "f"}', []),
        ('{"name": "f", "arguments": {"n": 1}}}', [Content("}</tool_call>")]),
        ('{"name": "f", "arguments": {"n": 1}, oh', [Content(", oh</tool_call>")]),
        ('{"name": "f", "arguments": {"n": 1}', []),
    ],
)
def test_what_else_an_envelope_may_hold(envelope: str, content: list[Part]) -> None:
    parts = parts_of(reader(mint=lambda: "id"), f"<tool_call>{envelope}</tool_call>")

    assert parts == [CallOpened(0, "id", "f"), CallArguments(0, '{"n": 1}'), CallClosed(0), *content]


def test_a_reply_that_is_cut_off_within_the_end_of_a_call_shows_nothing_of_it() -> None:
    for end in range(CALL.index("}") + 1, len(CALL) + 1):
        assert not any(isinstance(part, Content) for part in parts_of(reader(), CALL[:end]))
    assert parts_of(reader(), f"{CALL}</tool")[-1] == Content("</tool")


@pytest.mark.parametrize("schema", [{"$ref": "#/$defs/code"}, {"anyOf": [{"$ref": "#/$defs/code"}, {"type": "null"}]}])
@pytest.mark.parametrize(("types", "value"), [("string", "5"), ("integer", 5)])
def test_plain_text_is_of_the_type_that_a_reference_leads_to(
    schema: dict[str, object], types: str, value: object
) -> None:
    tool = Tool("f", None, {"properties": {"code": schema}, "$defs": {"code": {"type": types}}})
    call = "<tool_call>f<arg_key>code</arg_key><arg_value>5</arg_value></tool_call>"
    parts = parts_of(reader("glm47", offered=(tool,)), call)
    assert json.loads("".join(part.text for part in parts if isinstance(part, CallArguments))) == {"code": value}


def test_a_type_that_goes_round_in_circles_is_none() -> None:
    circle = {"anyOf": [{"$ref": "#/properties/text"}]}
    tool = Tool("f", None, {"properties": {"text": circle}})
    call = "<tool_call>f<arg_key>text</arg_key><arg_value>a</arg_value></tool_call>"
    assert CallClosed(0) in parts_of(reader("glm47", offered=(tool,)), call)


def test_no_arguments_are_an_empty_object() -> None:
    parts = parts_of(reader(mint=lambda: "id"), '<tool_call>{"name": "f"}}</tool_call>')

    assert parts == [CallOpened(0, "id", "f"), CallArguments(0, "{}"), CallClosed(0), Content("}</tool_call>")]


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        (r"'a\n\'\"\\ \d\x41\u00e9\0'", "a\n'\"\\ \\dAé\0"),
        (r"'\ud83d\ude00 \U0001F600'", "😀 😀"),
        (r'"it\'s"', "it's"),
        ("None", None),
        ("-1.5e3", -1500.0),
        ("{'a': [True, null, (1, 'b)')], 'c\\'d': \"}\"}", {"a": [True, None, [1, "b)"]], "c'd": "}"}),
    ],
)
def test_python_literals_become_json(literal: str, value: object) -> None:
    parts = parts_of(reader("llama"), f"[f(text={literal}, n=1)]")

    assert isinstance(parts[1], CallArguments)
    assert json.loads(parts[1].text) == {"text": value, "n": 1}
    assert isinstance(parts[2], CallClosed)


@pytest.mark.parametrize("literal", ["x", "1 +", "f()", "'a' 'b'", r"'\x4'", "{1}", "float('nan')", "1e999"])
def test_what_is_no_literal_is_told_as_it_stands_and_the_call_stays_open(literal: str) -> None:
    parts = parts_of(reader("llama"), f"[f(text={literal})]")

    assert not [part for part in parts if isinstance(part, CallClosed)]
    assert isinstance(parts[-1], CallArguments)
    assert parts[-1].text.endswith(")]")


def test_auto_keeps_to_the_family_of_the_first_call() -> None:
    other = "[TOOL_CALLS]f[ARGS]{}"
    parts = parts_of(reader("auto"), f"{CALL}{other}")

    assert [part.name for part in parts if isinstance(part, CallOpened)] == ["f"]
    assert parts[-1] == Content(other)
    assert [type(part) for part in parts_of(reader("auto"), other)] == [CallOpened, CallArguments, CallClosed]


@pytest.mark.parametrize(("reasoning", "tail"), [("qwen3", "<think>\n"), ("deepseek_r1", ""), ("auto", "[THINK]")])
def test_thinking_that_nothing_in_the_text_has_opened(reasoning: str, tail: str) -> None:
    made = reader(None, reasoning, tail)

    closing = "[/THINK]" if "[" in tail else "</think>"
    steps = [(made.thinking, made.feed(text)) for text in ("hm\n", closing, "\n\nYes")]

    assert steps == [(True, [Thinking("hm")]), (True, []), (False, [Content("Yes")])]


@pytest.mark.parametrize(("reasoning", "tail"), [("qwen3", ""), ("deepseek_r1", "<think></think>\n"), ("auto", "")])
def test_no_thinking_unless_it_is_opened(reasoning: str, tail: str) -> None:
    made = reader(None, reasoning, tail)

    assert not made.thinking
    assert parts_of(made, "a <think>b") == [Content("a <think>b")]


def test_the_line_breaks_around_thinking_are_not_part_of_it() -> None:
    parts = parts_of(reader(None, "qwen3"), "<think>\n\na\n\nb\n\n</think>\n\nc\n")

    assert parts == [Thinking("a\n\nb"), Content("c\n")]


def test_what_follows_the_end_of_the_budget_is_content_and_the_mark_is_still_taken_out() -> None:
    made = reader("hermes", "qwen3", "<think>")
    parts = made.feed("one two </th")
    made.stop_thinking()

    assert not made.thinking
    assert made.held == 4
    parts += parts_of(made, f"ree</think>\n\nfour{CALL}")
    assert joined(parts)[:2] == (Thinking("one two "), Content("</threefour"))
    assert isinstance(joined(parts)[2], CallOpened)


def test_a_reader_of_nothing_holds_nothing() -> None:
    made = reader(None)

    assert [made.feed(c) for c in " <think>"] == [[Content(c)] for c in " <think>"]
    assert made.finish() == []


@pytest.mark.parametrize("template", ["", "<tool_call>\n{"])
def test_every_name_is_a_family_and_others_are_refused(template: str) -> None:
    assert {tool_family(name, template, ()).name for name in TOOL_FAMILIES} == set(TOOL_FAMILIES)
    with pytest.raises(KeyError):
        tool_family("gemma", template, ())
    with pytest.raises(KeyError):
        reasoning_family("gemma", template, ())


def test_auto_looks_at_the_vocabulary_where_the_template_is_silent() -> None:
    assert tool_family("auto", "", {"[TOOL_CALLS]"}).name == "mistral"
    assert tool_family("auto", "<|tool_call_argument_begin|>", {"[TOOL_CALLS]"}).name == "kimi"
    assert tool_family("auto", "", {"<|im_start|>"}).name == "auto"
    assert reasoning_family("auto", "[THINK]", {"<think>"}).marks == (("[THINK]", "[/THINK]"),)
    assert reasoning_family("auto", "", {"<think>"}).marks == (("<think>", "</think>"),)
    assert len(reasoning_family("auto", "", ()).marks) > 1


def test_no_marker_hides_another() -> None:
    openers = {opener for formats in TOOL_FAMILIES.values() for one in formats for opener in one.openers if opener}
    hidden = [(a, b) for a in openers for b in openers if a != b and a in b and not b.endswith(a)]

    assert hidden == []


def test_stops_are_found_wherever_the_text_breaks_off() -> None:
    stops = Stops(["<ab>", "\n<ab>", "x"])

    assert stops.find("1\n<ab>", 0) == (1, "\n<ab>")
    assert stops.find("1\n<a", 0) == (1, "")
    assert stops.find("1\n<a ", 0) == (5, "")
    assert stops.find("1\n<ax", 0) == (4, "x")
    assert stops.find("<ab>", 1) == (4, "")
    assert Stops([]).find("abc", 0) == (3, "")


LONG = 50_000
LONG_TEXTS = {
    "content": ("hermes", "a " * LONG),
    "line breaks": ("qwen", "<think>" + "\n" * 2 * LONG),
    "spaces after a call": ("hermes", CALL + " " * 2 * LONG),
    "beginnings of markers": ("auto", "<tool_cal" * (LONG // 4)),
    "markers that open nothing": ("auto", "<tool_call>" * (LONG // 5)),
    "a string": ("hermes", '<tool_call>{"name": "f", "arguments": {"text": "' + "a<" * LONG),
    "arguments before the name": ("hermes", '<tool_call>{"arguments": {"text": "' + "a<" * LONG + '"}, "name": "g"}'),
    "a name": ("qwen", "<tool_call><function=" + "a" * 2 * LONG),
    "a value": ("qwen", "<tool_call><function=f><parameter=n>" + "{<" * LONG),
    "brackets": ("hermes", '<tool_call>{"name": "f", "arguments": {"n": ' + "[" * 2 * LONG),
    "a python string": ("llama", "[f(text='" + "\\n" * LONG),
    "a python list": ("llama", "[f(n=[" + "1," * LONG),
}


@pytest.mark.parametrize(("family", "text"), LONG_TEXTS.values(), ids=LONG_TEXTS.keys())
def test_time_is_linear_in_the_text_however_it_is_cut(family: str, text: str) -> None:
    def seconds(length: int) -> float:
        made = reader(family, "qwen3")
        start = time.process_time()
        for character in text[:length]:
            made.feed(character)
        made.finish()
        return time.process_time() - start

    assert seconds(len(text)) < 40 * max(seconds(len(text) // 8), 0.02)


FORMATS = {one for formats in TOOL_FAMILIES.values() for one in formats}
FRAGMENTS = sorted(
    {marker for one in FORMATS for marker in (*one.openers, *one.markers)}
    | {"<think>", "</think>", '{"name": "f", "arguments": ', '{"n": 1}', '{"text": "', '"', "}", "]", "[", "{", ", "}
    | {'{"arguments": ', ', "name": "f"', ', "id": 1'}
    | {"f", "\n", " ", "all\n", ">", "</function>", "</parameter>", "text", "n", "functions.f:0", "```json", "\\", "1"}
    | {"[f(n=1, text='", "[f(", "n=", "'", ")", "</", '" string="false">', "function<｜tool▁sep｜>f", "x"}
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*TOOL_FAMILIES, "auto"]),
    st.sampled_from(["qwen3", "deepseek_r1", None]),
    st.lists(st.sampled_from(FRAGMENTS), max_size=14),
    st.integers(min_value=1, max_value=9),
)
def test_whatever_a_model_writes(family: str, reasoning: str | None, fragments: list[str], size: int) -> None:
    def read(text: str, size: int) -> tuple[Part, ...]:
        made = reader(family, reasoning, mint=lambda: "id")
        parts = [part for at in range(0, len(text), size) for part in made.feed(text[at : at + size])]
        parts += made.finish()
        assert made.held == 0
        return joined(parts)

    text = "".join(fragments)
    parts = read(text, 1)
    assert parts == read(text, size) == read(text, len(text) + 1)
    closed = {part.index for part in parts if isinstance(part, CallClosed)}
    for part in parts:
        if isinstance(part, CallArguments):
            assert (part.index in closed) == is_object(part.text), parts
