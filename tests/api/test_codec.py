"""HfCodec: ids as transformers gives them, templates that cannot be abused, and the bytes behind tokens."""

import json
import threading
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from anyio.to_thread import run_sync
from transformers import AutoTokenizer

from api.errors import ApiError
from api.text.codec import LONG_TEXT, HfCodec
from api.text.conversation import ChatMessage
from runtime.errors import ModelError
from tests.api.vocabularies import prepended, write_model
from tests.tiny import END_OF_TEXT, IM_END, IM_START, make_tokenizer, write_tokenizer

pytestmark = pytest.mark.anyio

HELLO: list[ChatMessage] = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello! 🦊"}]


def with_template(path: Path, template: str | None) -> HfCodec:
    """A codec with another chat template."""
    write_tokenizer(path)
    config = json.loads((path / "tokenizer_config.json").read_text())
    config["chat_template"] = template
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return HfCodec(path)


async def chat_ids(codec: HfCodec, messages: list[ChatMessage], kwargs: dict[str, object]) -> tuple[int, ...]:
    return (await codec.chat_prompt(messages, template_kwargs=kwargs)).token_ids


async def test_a_chat_is_rendered_and_encoded_as_transformers_does_it(
    fresh_codec: HfCodec, tokenizer_path: Path
) -> None:
    hf = AutoTokenizer.from_pretrained(tokenizer_path, local_files_only=True)
    messages = [{name: str(value) for name, value in message.items()} for message in HELLO]
    expected = hf.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert await chat_ids(fresh_codec, HELLO, {}) == tuple(expected)


@pytest.mark.parametrize("text", ["Once upon a time", f"{IM_START}user\nHi{IM_END}", "日本語 🦊", " ", "a" * LONG_TEXT])
async def test_a_plain_prompt_is_encoded_as_transformers_does_it(
    fresh_codec: HfCodec, tokenizer_path: Path, text: str
) -> None:
    hf = AutoTokenizer.from_pretrained(tokenizer_path, local_files_only=True)
    assert await fresh_codec.prompt_ids(text) == tuple(hf.encode(text))


async def test_a_prompt_is_given_the_beginning_of_sequence_token_once(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": IM_START, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {IM_START: {"id": IM_START, "ids": [1], "tokens": [IM_START]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    codec = HfCodec(tmp_path)
    hello = tuple(make_tokenizer().encode("Hello").ids)
    assert await codec.prompt_ids("Hello") == (1, *hello)
    assert await codec.prompt_ids(f"{IM_START}Hello") == (1, *hello)
    assert (await chat_ids(codec, [{"role": "user", "content": "Hello"}], {})).count(1) == 2


async def test_a_long_text_is_encoded_while_the_loop_and_other_texts_go_on(fresh_codec: HfCodec) -> None:
    long, short = "Once upon a time. " * 4000, "Once upon a time."
    results: list[tuple[int, ...]] = []

    async def encode() -> None:
        results.append(await fresh_codec.prompt_ids(long))

    async with anyio.create_task_group() as group:
        group.start_soon(encode)
        group.start_soon(encode)
        expected = await fresh_codec.prompt_ids(short)
        turns = 0
        while len(results) < 2:
            assert await fresh_codec.prompt_ids(short) == expected
            turns += 1
            await checkpoint()
    assert turns > 2
    assert results[0] == results[1] == tuple(make_tokenizer().encode(long).ids)


async def test_long_texts_are_encoded_one_at_a_time(fresh_codec: HfCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    go_on = threading.Event()

    def encode(_text: str, *, special: bool) -> tuple[int, ...]:
        order.append("in")
        assert go_on.wait(10)
        order.append("out")
        return ()

    monkeypatch.setattr(fresh_codec, "_encode", encode)
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(fresh_codec.prompt_ids, "x" * LONG_TEXT)
        with anyio.fail_after(10):
            while not order:
                await checkpoint()
        for _ in range(1000):
            await checkpoint()
        go_on.set()
    assert order == ["in", "out", "in", "out"]


async def test_a_prompt_is_never_cut_short_or_padded_by_the_tokeniser(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert await HfCodec(tmp_path).prompt_ids("Once upon a time") == tuple(
        make_tokenizer().encode("Once upon a time").ids
    )


async def test_one_tokeniser_serves_many_threads_at_once(fresh_codec: HfCodec) -> None:
    ids = make_tokenizer().encode("Hello 🦊 " * 200).ids

    def work() -> None:
        for _ in range(20):
            detokeniser = fresh_codec.detokeniser()
            text = "".join(detokeniser.feed(token_id) for token_id in ids) + detokeniser.finish()
            assert text == fresh_codec.text_of(ids) == "Hello 🦊 " * 200

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(run_sync, work)
        for _ in range(20):
            await fresh_codec.prompt_ids("Hello 🦊 " * 2000)


async def test_a_template_that_refuses_the_messages_is_a_400_with_its_own_words(tmp_path: Path) -> None:
    codec = with_template(tmp_path, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ApiError, match="roles must alternate") as caught:
        await chat_ids(codec, HELLO, {})
    assert (caught.value.status, caught.value.param) == (400, "messages")


@pytest.mark.parametrize("template", ["{{ 1 + messages[0].content }}", "{{ messages[9].content.x }}", "{{ 1 / 0 }}"])
async def test_a_template_that_breaks_on_the_messages_is_a_400(tmp_path: Path, template: str) -> None:
    with pytest.raises(ApiError) as caught:
        await chat_ids(with_template(tmp_path, template), HELLO, {})
    assert caught.value.status == 400


async def test_a_model_without_a_chat_template_is_a_400_that_names_the_other_route(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="/v1/completions") as caught:
        await chat_ids(with_template(tmp_path, None), HELLO, {})
    assert caught.value.code == "no_chat_template"


async def test_template_kwargs_reach_the_template(tmp_path: Path) -> None:
    codec = with_template(tmp_path, "{{ messages[0].content }}{% if loud %}!{% endif %}")
    quiet, loud = await chat_ids(codec, HELLO, {}), await chat_ids(codec, HELLO, {"loud": True})
    assert loud == (*quiet, *make_tokenizer().encode("!").ids)


@pytest.mark.parametrize("name", ["chat_template", "tokenize", "conversation", "add_generation_prompt", "messages"])
async def test_template_kwargs_cannot_replace_the_template_or_how_it_is_used(fresh_codec: HfCodec, name: str) -> None:
    with pytest.raises(ApiError) as caught:
        await chat_ids(fresh_codec, HELLO, {name: "{{ 'x' * 10**9 }}"})
    assert (caught.value.status, caught.value.param) == (400, f"chat_template_kwargs.{name}")


async def test_a_prompt_tells_how_its_text_ends(fresh_codec: HfCodec) -> None:
    long = await fresh_codec.chat_prompt([{"role": "user", "content": "x" * 300}], template_kwargs={})
    assert long.tail == ("x" * 300 + "<|im_end|>\n<|im_start|>assistant\n")[-200:]


async def test_of_several_templates_the_one_for_tools_is_used_with_tools(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    with_tools = "{{ tools | tojson }}"
    config["chat_template"] = [
        {"name": "default", "template": "{{ messages[0].content }}"},
        {"name": "tool_use", "template": with_tools},
    ]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    codec = HfCodec(tmp_path)
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    prompt = await codec.chat_prompt([{"role": "user", "content": "Hi"}], tools=[tool], template_kwargs={})
    assert codec.chat_template == with_tools
    assert prompt.tail == json.dumps([tool])
    assert (await codec.chat_prompt([{"role": "user", "content": "Hi"}], template_kwargs={})).tail == "Hi"


def test_a_model_without_a_chat_template_has_an_empty_one(tmp_path: Path) -> None:
    assert with_template(tmp_path, None).chat_template == ""


def test_special_ids_are_those_of_the_names_that_are_special(fresh_codec: HfCodec) -> None:
    assert fresh_codec.special_ids([IM_START, "the", "<unknown>", IM_END]) == {IM_START: 1, IM_END: 2}


def test_special_tokens_that_are_shown_are_written_by_their_names(fresh_codec: HfCodec, tmp_path: Path) -> None:
    for codec in (fresh_codec, write_model(tmp_path, prepended()).codec):
        shown = codec.special_ids([IM_START])
        detokeniser = codec.detokeniser(frozenset(shown.values()))
        (hidden,) = codec.special_ids([IM_END]).values()
        ids = anyio.run(codec.prompt_ids, f"the é{IM_START}the")
        text = "".join(map(detokeniser.feed, (hidden, *ids, hidden))) + detokeniser.finish()
        assert text.replace(f"{IM_START} ", IM_START) == f"the é{IM_START}the"


def test_stop_ids_are_those_of_the_tokeniser_and_of_both_config_files(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "eos_token_id": 7}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [8, 9]}')
    assert HfCodec(tmp_path).stop_ids == {2, 7, 8, 9}


@pytest.mark.parametrize(
    ("text", "expected"), [(" wor", b" wor"), (IM_END, IM_END.encode()), (END_OF_TEXT, END_OF_TEXT.encode())]
)
def test_a_token_stands_for_the_bytes_of_its_text(fresh_codec: HfCodec, text: str, expected: bytes) -> None:
    (token_id,) = make_tokenizer().encode(text).ids
    assert fresh_codec.token_bytes(token_id) == expected


def test_every_byte_has_a_token_that_stands_for_it_alone(fresh_codec: HfCodec) -> None:
    assert {fresh_codec.token_bytes(token_id) for token_id in range(3, 259)} == {bytes([byte]) for byte in range(256)}


def test_an_id_without_a_token_stands_for_nothing(fresh_codec: HfCodec) -> None:
    assert fresh_codec.token_bytes(100_000) == b""


@pytest.mark.parametrize("files", [{}, {"tokenizer.json": "{"}, {"tokenizer.json": "{}", "config.json": "{}"}])
def test_a_directory_without_a_usable_tokeniser_is_one_clear_line(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError) as caught:
        HfCodec(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: the tokeniser")
    assert "\n" not in str(caught.value)
