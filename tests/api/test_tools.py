"""Tools, reasoning and structure in chats: what reaches the desk, and what a client reads, whole and streamed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import cast

import orjson
import pytest
from quart import Quart
from tokenizers import AddedToken, Tokenizer

from actors import messages as m
from api.text.codec import HfCodec
from runtime.types import CancelCause, FinishReason
from tests.api.calling import Reply, call
from tests.api.fakes import API_FACTS, CHAT, FakeDesk, begins, ends_with, events, ids_of, make_app, says

pytestmark = pytest.mark.anyio

ROUTE = "/v1/chat/completions"
Json = dict[str, object]
Served = Callable[..., Quart]

LOOK: Json = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}
OFFER = CHAT | {"tools": [LOOK]}
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "the cat"}}\n</tool_call>'
CAPITAL: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
AS_CAPITAL: Json = {"response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": CAPITAL}}}


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk(model_facts=replace(API_FACTS, context_tokens=4096))


@pytest.fixture
def serving(desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str) -> Served:
    """Makes the application with some settings."""
    return lambda **settings: make_app(desk, fresh_codec, anyio_backend, **settings)


async def whole(app: Quart, body: Json) -> Json:
    reply = await call(app, "POST", ROUTE, body)
    assert reply.status == 200, reply.body
    (choice,) = cast("list[Json]", reply.json["choices"])
    return choice


async def deltas(app: Quart, body: Json) -> tuple[list[Json], str]:
    """What the chunks of a streamed choice say, after who speaks; and the reason of its end."""
    reply: Reply = await call(app, "POST", ROUTE, body | {"stream": True})
    *chunks, done = events(reply.body)
    assert done == b"[DONE]"
    _, *choices, last = [orjson.loads(chunk)["choices"][0] for chunk in chunks]
    return [choice["delta"] for choice in choices], last["finish_reason"]


def called(delta: Json) -> Json:
    """What a delta says of the one call it tells of."""
    assert list(delta) == ["tool_calls"]
    (made,) = cast("list[Json]", delta["tool_calls"])
    return made


async def test_a_call_is_found_in_the_text(serving: Served, desk: FakeDesk) -> None:
    desk.script = says(f"I shall look.\n{CALL}")
    choice = await whole(serving(enable_auto_tool_choice=True), OFFER)
    message = cast("Json", choice["message"])
    assert (choice["finish_reason"], message["content"]) == ("tool_calls", "I shall look.\n")
    (made,) = cast("list[Json]", message["tool_calls"])
    assert str(made.pop("id")).startswith("call_")
    assert made == {"type": "function", "function": {"name": "look", "arguments": '{"at": "the cat"}'}}


async def test_a_reply_that_is_nothing_but_calls_has_no_content(serving: Served, desk: FakeDesk) -> None:
    desk.script = says(f"{CALL}\n{CALL}")
    message = cast("Json", (await whole(serving(enable_auto_tool_choice=True), OFFER))["message"])
    assert message["content"] is None
    ids = [made["id"] for made in cast("list[Json]", message["tool_calls"])]
    assert len(set(ids)) == 2


async def test_a_streamed_call_says_id_and_name_first_and_its_arguments_as_they_come(
    serving: Served, desk: FakeDesk
) -> None:
    desk.script = says(CALL)
    (opened, *fragments), reason = await deltas(serving(enable_auto_tool_choice=True, stream_interval=2), OFFER)
    made = called(opened)
    assert (made["index"], made["type"], made["function"]) == (0, "function", {"name": "look", "arguments": ""})
    assert len(fragments) > 5
    pieces = [cast("dict[str, str]", called(fragment)["function"])["arguments"] for fragment in fragments]
    assert ("".join(pieces), reason) == ('{"at": "the cat"}', "tool_calls")


async def test_where_calls_must_not_be_parallel_the_reply_ends_with_the_first(serving: Served, desk: FakeDesk) -> None:
    desk.script = begins(f"Well.{CALL}\n{CALL} And more")
    choice = await whole(serving(enable_auto_tool_choice=True), OFFER | {"parallel_tool_calls": False})
    message = cast("Json", choice["message"])
    assert (choice["finish_reason"], message["content"]) == ("tool_calls", "Well.")
    assert len(cast("list[Json]", message["tool_calls"])) == 1
    assert desk.causes == [CancelCause.STOP_STRING]


async def test_a_call_cut_off_by_its_length_says_length(serving: Served, desk: FakeDesk) -> None:
    desk.script = says(CALL.partition(" cat")[0], reason=FinishReason.LENGTH)
    choice = await whole(serving(enable_auto_tool_choice=True), OFFER)
    (made,) = cast("list[dict[str, Json]]", cast("Json", choice["message"])["tool_calls"])
    assert (choice["finish_reason"], made["function"]["arguments"]) == ("length", '{"at": "the')


async def test_a_broken_call_is_not_a_finished_one(serving: Served, desk: FakeDesk) -> None:
    desk.script = says('<tool_call>\n{"name": "look", "arguments": {"at": the cat}}\n</tool_call>')
    choice = await whole(serving(enable_auto_tool_choice=True), OFFER)
    assert choice["finish_reason"] == "stop"
    assert "the cat" in orjson.dumps(choice["message"]).decode()


async def test_tools_are_refused_where_calls_are_not_looked_for(app: Quart, desk: FakeDesk) -> None:
    reply = await call(app, "POST", ROUTE, OFFER)
    assert (reply.status, reply.error["param"]) == (400, "tools")
    assert "--enable-auto-tool-choice" in str(reply.error["message"])
    assert desk.admitted == []


async def test_tools_that_must_not_be_called_are_not_shown_to_the_model(app: Quart, desk: FakeDesk) -> None:
    desk.script = says(CALL)
    message = cast("Json", (await whole(app, OFFER | {"tool_choice": "none"}))["message"])
    await whole(app, CHAT)
    assert message["content"] == CALL
    assert desk.admitted[0].prompt_ids == desk.admitted[1].prompt_ids


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look"}}])
async def test_a_wanted_call_is_enforced_and_needs_no_setting(app: Quart, desk: FakeDesk, choice: object) -> None:
    desk.script = says(CALL)
    assert (await whole(app, OFFER | {"tool_choice": choice}))["finish_reason"] == "tool_calls"
    assert "look" in desk.admitted[0].sampling.grammar


async def test_a_wanted_function_is_the_only_one_that_the_grammar_knows(app: Quart, desk: FakeDesk) -> None:
    other = {"type": "function", "function": {"name": "listen"}}
    wanted = {"type": "function", "function": {"name": "listen"}}
    await call(app, "POST", ROUTE, CHAT | {"tools": [LOOK, other], "tool_choice": wanted})
    assert "listen" in desk.admitted[0].sampling.grammar
    assert "look" not in desk.admitted[0].sampling.grammar


async def test_a_call_may_be_wanted_alone(app: Quart, desk: FakeDesk) -> None:
    for parallel in (True, False):
        body = OFFER | {"tool_choice": "required", "parallel_tool_calls": parallel}
        await call(app, "POST", ROUTE, body)
    several, alone = (request.sampling.grammar for request in desk.admitted)
    assert several != alone


async def test_free_text_has_no_grammar(serving: Served, desk: FakeDesk) -> None:
    app = serving(enable_auto_tool_choice=True)
    for body in (CHAT, OFFER, CHAT | {"response_format": {"type": "text"}}):
        await whole(app, body)
    assert [request.sampling.grammar for request in desk.admitted] == ["", "", ""]


async def test_the_form_of_an_answer_is_a_grammar(app: Quart, desk: FakeDesk) -> None:
    await whole(app, CHAT | AS_CAPITAL)
    await whole(app, CHAT | {"response_format": {"type": "json_object"}})
    with_schema, any_object = (request.sampling.grammar for request in desk.admitted)
    assert "city" in with_schema
    assert any_object
    assert "city" not in any_object


async def test_where_tools_are_offered_a_call_is_an_answer_of_any_form(serving: Served, desk: FakeDesk) -> None:
    await whole(serving(enable_auto_tool_choice=True), OFFER | AS_CAPITAL)
    grammar = desk.admitted[0].sampling.grammar
    assert "city" in grammar
    assert "look" in grammar


async def test_a_schema_that_cannot_be_enforced_is_a_400_that_names_the_keyword(app: Quart, desk: FakeDesk) -> None:
    schema = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}
    reply = await call(app, "POST", ROUTE, CHAT | {"response_format": form})
    assert reply.status == 400
    assert "not" in str(reply.error["message"])
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    reply = await call(app, "POST", ROUTE, CHAT | {"tools": [tool], "tool_choice": "required"})
    assert (reply.status, str(reply.error["param"]).startswith("tools.0")) == (400, True)
    assert desk.admitted == []


async def test_thinking_comes_before_the_content_under_both_its_names(serving: Served, desk: FakeDesk) -> None:
    desk.script = says("<think>\nHm, hm.\n</think>\n\nYes.")
    app = serving(reasoning_parser="qwen3")
    reply = await call(app, "POST", ROUTE, CHAT)
    (choice,) = cast("list[Json]", reply.json["choices"])
    assert choice["message"] == {
        "role": "assistant",
        "content": "Yes.",
        "reasoning": "Hm, hm.",
        "reasoning_content": "Hm, hm.",
    }
    details = cast("dict[str, dict[str, int]]", reply.json["usage"])["completion_tokens_details"]
    assert len(ids_of("Hm, hm.")) <= details["reasoning_tokens"] <= len(ids_of("<think>\nHm, hm.\n</think>"))


async def test_thinking_is_streamed_first(serving: Served, desk: FakeDesk) -> None:
    desk.script = says("<think>\nHm, hm.\n</think>\n\nYes.")
    said, _ = await deltas(serving(reasoning_parser="qwen3"), CHAT)
    kinds = [(delta["reasoning"] is not None, "content" in delta) for delta in said]
    assert kinds == sorted(kinds, reverse=True)
    assert "".join(str(delta["reasoning"] or "") for delta in said) == "Hm, hm."
    assert all(delta["reasoning_content"] == delta["reasoning"] for delta in said)
    assert "".join(str(delta.get("content", "")) for delta in said) == "Yes."


async def test_where_there_is_no_thinking_it_is_null_for_clients_that_read_it_unasked(
    serving: Served, desk: FakeDesk
) -> None:
    desk.script = says("Yes.")
    app = serving(reasoning_parser="qwen3")
    assert (await whole(app, CHAT))["message"] == {
        "role": "assistant",
        "content": "Yes.",
        "reasoning": None,
        "reasoning_content": None,
    }
    said, _ = await deltas(app, CHAT)
    assert {(delta["reasoning"], delta["reasoning_content"]) for delta in said} == {(None, None)}


async def test_without_a_reasoning_parser_thinking_is_content(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("<think>Hm.</think>Yes.")
    assert cast("Json", (await whole(app, CHAT))["message"])["content"] == "<think>Hm.</think>Yes."


async def test_thinking_beyond_its_bound_is_content(serving: Served, desk: FakeDesk) -> None:
    desk.script = says("<think>One two three four five six seven eight nine ten</think>Yes.")
    app = serving(reasoning_parser="qwen3", max_thinking_tokens=8)
    reply = await call(app, "POST", ROUTE, CHAT)
    (choice,) = cast("list[Json]", reply.json["choices"])
    message = cast("dict[str, str]", choice["message"])
    assert message["reasoning"] + message["content"] == "One two three four five six seven eight nine tenYes."
    assert message["reasoning"]
    assert "ten" in message["content"]
    details = cast("dict[str, dict[str, int]]", reply.json["usage"])["completion_tokens_details"]
    assert details["reasoning_tokens"] == 8


async def test_stop_strings_are_looked_for_in_content_only(serving: Served, desk: FakeDesk) -> None:
    desk.script = begins("<think>No END here.</think>Yes. END. More")
    choice = await whole(serving(reasoning_parser="qwen3"), CHAT | {"stop": ["END"]})
    message = cast("Json", choice["message"])
    assert (message["reasoning"], message["content"], choice["finish_reason"]) == ("No END here.", "Yes. ", "stop")
    assert desk.causes == [CancelCause.STOP_STRING]


async def test_a_grammar_begins_behind_the_thinking(serving: Served, desk: FakeDesk) -> None:
    await whole(serving(reasoning_parser="qwen3"), CHAT | AS_CAPITAL)
    assert "</think>" in desk.admitted[0].sampling.grammar


async def test_a_grammar_has_no_thinking_where_nothing_says_that_the_model_thinks(
    serving: Served, desk: FakeDesk
) -> None:
    await whole(serving(reasoning_parser="auto"), CHAT | AS_CAPITAL)
    assert "think" not in desk.admitted[0].sampling.grammar


async def test_a_conversation_with_calls_reads_back_as_one(serving: Served, desk: FakeDesk) -> None:
    app = serving(enable_auto_tool_choice=True)
    desk.script = says(CALL)
    message = cast("Json", (await whole(app, OFFER))["message"])
    (made,) = cast("list[Json]", message["tool_calls"])
    answer = {"role": "tool", "tool_call_id": made["id"], "content": "It sleeps."}
    question = cast("list[Json]", CHAT["messages"])
    desk.script = says("The cat sleeps.")
    choice = await whole(app, OFFER | {"messages": [*question, message, answer]})
    assert cast("Json", choice["message"])["content"] == "The cat sleeps."
    first, second = (request.prompt_ids for request in desk.admitted)
    assert len(second) > len(first)


async def test_a_mark_that_is_one_token_is_so_in_the_grammar(
    desk: FakeDesk, tokenizer_path: Path, tmp_path: Path, anyio_backend: str
) -> None:
    copytree(tokenizer_path, tmp_path, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in ("<think>", "</think>")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    app = make_app(desk, HfCodec(tmp_path), anyio_backend, reasoning_parser="qwen3")
    await whole(app, CHAT | AS_CAPITAL)
    grammar = desk.admitted[0].sampling.grammar
    assert all(f"<[{tokenizer.token_to_id(mark)}]>" in grammar for mark in ("<think>", "</think>"))


async def test_a_stop_string_behind_a_call_leaves_the_call_what_it_is(serving: Served, desk: FakeDesk) -> None:
    desk.script = begins(f"{CALL} And then END")
    choice = await whole(serving(enable_auto_tool_choice=True), OFFER | {"stop": ["END"]})
    assert choice["finish_reason"] == "tool_calls"


async def test_a_form_that_the_engine_cannot_follow_is_a_400(app: Quart, desk: FakeDesk) -> None:
    desk.script = ends_with(lambda request_id: m.Failed(request_id, "too many states", refused=True))
    reply = await call(app, "POST", ROUTE, CHAT | AS_CAPITAL)
    assert (reply.status, reply.error["code"]) == (400, "form_not_possible")
    assert "too many states" in str(reply.error["message"])
