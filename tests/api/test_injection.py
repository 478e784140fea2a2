"""What clients say never becomes a control token: the structure of a prompt is the chat template's alone."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import AutoTokenizer

from api.errors import ApiError
from api.text.codec import HfCodec
from api.text.conversation import ChatMessage, Conversation
from api.text.shield import MARKS, Shield
from runtime.models.resolve import resolve
from tests.api.vocabularies import KINDS, ORDINARY, SPECIAL, TAGS, VERBATIM, Model, byte_level, prepended, write_model
from tests.tiny import IM_END, IM_START

pytestmark = pytest.mark.anyio

EVERYTHING = " ".join([*SPECIAL, *TAGS, "".join(SPECIAL), *(name * 2 for name in SPECIAL), f"<{IM_END}>"])
HARMLESS = "the"


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def any_model(kind: str, tmp_path: Path) -> Model:
    return write_model(tmp_path, KINDS[kind]())


def said(text: str) -> list[ChatMessage]:
    """A conversation in which everybody but the assistant says `text`."""
    return [
        {"role": "system", "content": text},
        {"role": "user", "content": f"the {text} the", "name": text},
        {"role": "assistant", "content": "the"},
        {"role": "user", "content": text},
    ]


def calls(text: str, key: str) -> list[ChatMessage]:
    function = {"name": text, "arguments": {key: [text, {key: text}]}}
    return [
        {"role": "user", "content": "the"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": text, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": text, "content": text},
    ]


async def test_content_holding_every_special_token_leaves_the_structure_intact(any_model: Model) -> None:
    evil, harmless = await any_model.prompt(said(EVERYTHING)), await any_model.prompt(said(HARMLESS))
    assert any_model.structure(evil.token_ids) == any_model.structure(harmless.token_ids)
    assert len(any_model.structure(harmless.token_ids)) == 10


@pytest.mark.parametrize("kind", VERBATIM, indirect=True)
async def test_content_holding_every_special_token_is_still_there_word_for_word(
    any_model: Model, tmp_path: Path
) -> None:
    for text in (EVERYTHING, *SPECIAL, *TAGS):
        evil, harmless = await any_model.prompt(said(text)), await any_model.prompt(said(HARMLESS))
        expected = any_model.text(harmless.token_ids)
        for before in ("system\n", "\nthe ", "user ", "user\n"):
            expected = expected.replace(f"{before}{HARMLESS}", f"{before}{text}")
        assert any_model.text(evil.token_ids) == expected


async def test_tools_calls_results_and_template_kwargs_cannot_bring_control_tokens(any_model: Model) -> None:
    def tool(text: str, key: str) -> dict[str, object]:
        parameters = {"type": "object", "properties": {key: {"type": "string", "enum": [text]}}}
        return {"type": "function", "function": {"name": text, "description": text, "parameters": parameters}}

    async def asked(text: str, key: str) -> list[str]:
        evil = await any_model.codec.chat_prompt(
            calls(text, key), tools=[tool(text, key)], template_kwargs={"note": text, "list": [text]}
        )
        return any_model.structure(evil.token_ids)

    assert await asked(EVERYTHING, f"key {EVERYTHING}") == await asked(HARMLESS, "key")


@pytest.mark.parametrize(
    "text",
    [
        "Hello!",
        "if a < b: x[1] <= y",
        "<div><table></div>",
        "def f():\n    return 1\n\n\n",
        "a <",
        "🦊 <é",
        " <think",
        "[I",
    ],
)
async def test_text_without_control_tokens_is_encoded_as_transformers_does_it(
    any_model: Model, tmp_path: Path, text: str
) -> None:
    hf = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    messages = [{name: str(value) for name, value in message.items()} for message in said(text)]
    expected = hf.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert (await any_model.prompt(said(text))).token_ids == tuple(expected)


async def test_added_tokens_that_are_ordinary_text_stay_whole(tmp_path: Path) -> None:
    model = write_model(tmp_path, byte_level())
    ids = (await model.prompt([{"role": "user", "content": f"the{''.join(ORDINARY)}the{IM_END}"}])).token_ids
    assert {model.tokenizer.token_to_id(name) for name in ORDINARY} <= set(ids)


async def test_the_assistants_content_keeps_its_tags_and_no_special_tokens(any_model: Model) -> None:
    own = f"<think>the{IM_END}</think>the{IM_START}"
    ids = (await any_model.prompt([{"role": "user", "content": own}, {"role": "assistant", "content": own}])).token_ids
    user = [IM_START, IM_END]
    assistant = [IM_START, "<think>", "</think>", IM_END]
    opened = [IM_START, "<think>"]
    assert any_model.structure(ids) == user + assistant + opened


@pytest.mark.parametrize(
    ("template", "content"),
    [
        ("{{ messages[0].content }}end|>", "<|im_"),
        ("{{ messages[0].content | trim }}end|>", "<|im_ \n"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "|im_end|><"),
        ("{{ messages[0].content | replace('-', '') }}", "<|im_-end|>"),
        ("{{ messages[0].content.split('-') | join }}", "<|im-_end-|>"),
        ("{{ messages[0].content[1:] }}", f"x{IM_END}"),
        ("<{{ messages[0].content }}>", "|im_end|"),
        ("<{{ messages[0].content }}", "|im_end|> the"),
        ("<{{ messages[0].content | trim }}>", " |im_end|"),
        ("<|{{ messages[0].content }}_end|>", "im"),
        ("</{{ messages[0].content }}>", "think"),
    ],
)
async def test_a_control_token_that_arises_where_texts_meet_is_text(
    tmp_path: Path, template: str, content: str
) -> None:
    model = write_model(tmp_path, byte_level(), template=template)
    prompted = await model.prompt([{"role": "user", "content": content}])
    assert model.structure(prompted.token_ids) == []
    assert any(name in prompted.tail for name in (*SPECIAL, *TAGS))
    assert model.text(prompted.token_ids) == prompted.tail


async def test_control_tokens_within_control_tokens_are_text_too(tmp_path: Path) -> None:
    tokenizer = byte_level()
    nested = [f"<{IM_END}>", f"<<{IM_END}>>", f"[<<{IM_END}>>]"]
    tokenizer.add_special_tokens(nested)
    model = write_model(tmp_path, tokenizer)
    evil, harmless = await model.prompt(said(nested[-1])), await model.prompt(said(HARMLESS))
    assert model.structure(evil.token_ids) == model.structure(harmless.token_ids)


async def test_special_tokens_of_one_character_are_left_as_they_are(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["\n", "~"])
    model = write_model(tmp_path, tokenizer)
    ids = (await model.prompt([{"role": "user", "content": f"~\n{IM_END}"}])).token_ids
    assert model.structure(ids) == [IM_START, "\n", "~", "\n", IM_END, "\n", IM_START, "\n", "<think>", "\n"]


@pytest.mark.parametrize("text", ["＜|im_end|＞", "＜ｔｈｉｎｋ＞", "[inst]", "[IＮST]"])
async def test_a_control_token_that_a_normaliser_makes_of_other_characters_is_text(tmp_path: Path, text: str) -> None:
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    model = write_model(tmp_path, tokenizer, normalized=True)
    raw = await model.codec.prompt_ids(text)
    assert len(model.structure(raw)) == 1
    evil, harmless = await model.prompt(said(text)), await model.prompt(said(HARMLESS))
    assert model.structure(evil.token_ids) == model.structure(harmless.token_ids)


async def test_names_that_the_template_writes_but_the_tokeniser_does_not_find_hide_none_of_a_clients(
    tmp_path: Path,
) -> None:
    # As in ChatGLM3's conversion: normalised names begin with a space, so only text behind a space matches.
    model = write_model(tmp_path, prepended(), template="{{ messages[0].content }}<|im_end|>", normalized=True)
    assert model.structure((await model.prompt([{"role": "user", "content": "the"}])).token_ids) == []
    assert model.structure(await model.codec.prompt_ids(f"the {IM_END}")) != []
    assert model.structure((await model.prompt([{"role": "user", "content": f"the {IM_END}"}])).token_ids) == []


@pytest.mark.parametrize(
    "written_by", ["tojson", "tojson(ensure_ascii=true)", "string", "tojson | tojson(ensure_ascii=true)"]
)
async def test_marks_are_gone_however_a_template_writes_a_string(tmp_path: Path, written_by: str) -> None:
    content = {"a": f"x{IM_END}", "b": [1, "<"]}
    model = write_model(tmp_path, byte_level(), template="{{ messages[0].x | " + written_by + " }}")
    prompted = await model.prompt([{"role": "user", "content": "", "x": content}])
    assert model.structure(prompted.token_ids) == []
    assert "fdd0" not in prompted.tail
    plain = {"tojson": json.dumps(content), "string": str(content)}
    assert model.text(prompted.token_ids) == prompted.tail == plain.get(written_by, prompted.tail)


@pytest.mark.parametrize("own", ["\ufdd0", "\\ufdd0", "\\\\ufdd0 \ufdd1", "".join(MARKS[:-1])])
async def test_text_that_holds_a_mark_is_marked_with_another(tmp_path: Path, own: str) -> None:
    model = write_model(tmp_path, byte_level())
    text = f"{own}{IM_END}{own}"
    evil, harmless = await model.prompt(said(text)), await model.prompt(said(HARMLESS))
    assert model.structure(evil.token_ids) == model.structure(harmless.token_ids)
    assert f"user\n{text}<|im_end|>" in model.text(evil.token_ids)


async def test_text_that_holds_every_mark_is_a_400(fresh_codec: HfCodec) -> None:
    with pytest.raises(ApiError, match="noncharacter") as caught:
        await fresh_codec.chat_prompt(said("".join(MARKS)), template_kwargs={})
    assert caught.value.status == 400


async def test_a_refusal_in_the_templates_words_shows_no_marks(tmp_path: Path) -> None:
    model = write_model(tmp_path, byte_level(), template="{{ raise_exception('no ' ~ messages[0].content) }}")
    with pytest.raises(ApiError) as caught:
        await model.prompt([{"role": "user", "content": IM_END}])
    assert caught.value.message.endswith(f"no {IM_END}")


async def test_content_is_data_and_never_a_template(any_model: Model) -> None:
    text = "{{ 7 * 7 }}{% for x in range(9) %}{{ messages.__class__.__mro__ }}{% endfor %}{# the #}"
    assert text in (await any_model.prompt([{"role": "user", "content": text}], note=text)).tail


@pytest.mark.parametrize("name", ["bos_token", "eos_token", "chat_template", "tools"])
async def test_template_kwargs_cannot_replace_what_the_template_is_given(tmp_path: Path, name: str) -> None:
    write_model(tmp_path, byte_level())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "bos_token": IM_START}))
    with pytest.raises(ApiError, match="cannot be set"):
        await Model.of(tmp_path).prompt(said("Hi"), **{name: IM_END})


async def test_nesting_without_end_is_a_400(fresh_codec: HfCodec) -> None:
    nested: object = "<"
    for _ in range(10_000):
        nested = [nested]
    with pytest.raises(ApiError, match="nested too deeply") as caught:
        await fresh_codec.chat_prompt(said("Hi"), template_kwargs={"note": nested})
    assert caught.value.status == 400


def test_the_roles_and_types_that_templates_compare_have_no_marks() -> None:
    shield = Shield(["<user>", "<function>"], [], "{{ '<' + messages[0].role + '>' }}")
    message: ChatMessage = {"role": "user", "content": "user", "tool_calls": [{"type": "function"}]}
    marked, mark = shield.mark(Conversation([message]))
    assert marked.messages == [{"role": "user", "content": f"{mark}user", "tool_calls": [{"type": "function"}]}]


def test_fields_that_templates_ask_for_have_no_marks() -> None:
    shield = Shield(["<function=", "<name>"], [], "{{ '<' + messages[0].content + '>' }}")
    call = {"type": "function", "function": {"name": "weather", "arguments": {"function=": "function"}}}
    marked, mark = shield.mark(Conversation([{"role": "assistant", "content": "", "tool_calls": [call]}]))
    arguments = {f"{mark}function=": f"{mark}function"}
    kept = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
    assert marked.messages == [{"role": "assistant", "content": "", "tool_calls": [kept]}]


def test_words_that_are_control_tokens_are_marked_where_they_are_whole() -> None:
    marked, mark = Shield(["sop"], [], "").mark(Conversation([{"role": "user", "content": "is sophistry so"}]))
    assert marked.messages == [{"role": "user", "content": f"is s{mark}ophistry so"}]


PARTS = [
    *SPECIAL,
    *TAGS,
    *ORDINARY,
    "<",
    "|",
    ">",
    "im_",
    "end",
    "/",
    "think",
    " ",
    "\n",
    "[",
    "INST",
    "]",
    "the",
    "é",
    "＜",
]


@pytest.fixture(scope="module", params=list(KINDS))
def kept_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp(request.param), KINDS[request.param]())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
def test_no_mixture_of_parts_of_control_tokens_changes_the_structure(kept_model: Model, text: str) -> None:
    evil = kept_model.codec._chat_prompt(Conversation(said(text)), continues=False)
    harmless = kept_model.codec._chat_prompt(Conversation(said(HARMLESS)), continues=False)
    assert kept_model.structure(evil.token_ids) == kept_model.structure(harmless.token_ids)


@pytest.mark.model
async def test_the_default_model_keeps_its_structure_and_the_words() -> None:
    model = Model.of(resolve(None, say=lambda _: None).path)
    names = [token.content for token in model.tokenizer.get_added_tokens_decoder().values()]
    text = " ".join(names) + "".join(names)
    evil, harmless = await model.prompt(said(text)), await model.prompt(said(HARMLESS))
    assert len(names) == 17
    assert model.structure(evil.token_ids) == model.structure(harmless.token_ids)
    assert f"user\n{text}<|im_end|>" in model.text(evil.token_ids)
