"""POST /v1/responses: items in, items and events out, and going on from what was kept."""

from dataclasses import replace
from typing import cast

import openai
import orjson
import pytest
from anyio.to_thread import run_sync
from openai.types.responses import Response, ResponseFailedEvent
from quart import Quart

from api.call import Call, current_call
from api.exchange import ChoiceEvent, Cost, Ending
from api.parsers.parts import CallArguments, CallClosed, CallOpened, Content, Part, Thinking
from api.response_store import ResponseStore, StoredResponse
from api.responses_writer import ResponsesWriter
from api.schema.chat import Message
from api.schema.response_items import messages_of
from api.schema.responses import ResponsesBody
from api.schema.tools import CalledFunction, ToolCall
from api.text.codec import HfCodec
from runtime.types import CancelCause, FinishReason
from tests.api.calling import Reply, call
from tests.api.fakes import API_FACTS, FakeDesk, cancelled_by, ends_with, make_app, says, served

pytestmark = pytest.mark.anyio

ROUTE = "/v1/responses"
HI = {"model": "default", "input": "Hi there"}
Json = dict[str, object]


def told(reply: Reply) -> list[Json]:
    """The events of a stream, each of whose names is that of its data."""
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in reply.body.decode().strip().split("\n\n"):
        name, data = block.split("\n")
        events.append(orjson.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


async def test_a_whole_response_is_one_message(app: Quart, desk: FakeDesk) -> None:
    body = (await call(app, "POST", ROUTE, HI)).json
    assert (body["object"], body["status"], body["model"]) == ("response", "completed", "tiny/llama")
    (item,) = cast("list[Json]", body["output"])
    assert item["type"] == "message"
    assert item["content"] == [{"type": "output_text", "text": "Hello world.", "annotations": [], "logprobs": []}]
    usage = cast("Json", body["usage"])
    assert usage["input_tokens"] == len(desk.admitted[0].prompt_ids)
    assert body["temperature"] == desk.admitted[0].sampling.temperature


async def test_a_stream_tells_the_events_in_order_and_numbers_them(app: Quart) -> None:
    events = told(await call(app, "POST", ROUTE, HI | {"stream": True}))
    kinds = [str(event["type"]).removeprefix("response.") for event in events]
    assert [kind for at, kind in enumerate(kinds) if kind not in kinds[:at]] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    deltas = [str(event["delta"]) for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "Hello world."
    final = Response.model_validate(events[-1]["response"])
    assert final.output_text == "Hello world."


def test_the_form_of_the_text_is_the_response_format_of_a_chat() -> None:
    form = {"type": "json_schema", "name": "person", "schema": {"type": "object"}, "strict": True}
    chat = ResponsesBody.model_validate(HI | {"text": {"format": form}}).text.format.as_chat()
    assert chat.json_schema
    assert (chat.type, chat.json_schema.name, chat.json_schema.schema_) == ("json_schema", "person", {"type": "object"})


async def test_a_response_cut_off_by_its_length_is_incomplete(app: Quart, desk: FakeDesk) -> None:
    desk.script = says("Hello", reason=FinishReason.LENGTH)
    body = (await call(app, "POST", ROUTE, HI | {"max_output_tokens": 3})).json
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    events = told(await call(app, "POST", ROUTE, HI | {"stream": True}))
    assert events[-1]["type"] == "response.incomplete"


async def test_a_failure_in_a_stream_is_two_events_and_no_end(app: Quart, desk: FakeDesk) -> None:
    desk.script = ends_with(cancelled_by(CancelCause.DEADLINE), "Hel")
    *_, error, failed = told(await call(app, "POST", ROUTE, HI | {"stream": True}))
    assert (error["type"], error["code"]) == ("error", "deadline")
    assert failed["type"] == "response.failed"
    assert cast("Json", failed["response"])["status"] == "failed"
    ResponseFailedEvent.model_validate(failed, strict=True)  # Codes are a closed list there.


async def test_a_response_goes_on_from_the_one_before(app: Quart, desk: FakeDesk) -> None:
    first = (await call(app, "POST", ROUTE, HI | {"instructions": "Be brief."})).json
    await call(app, "POST", ROUTE, {"input": "And then?", "previous_response_id": first["id"]})
    spelled_out = [
        {"role": "user", "content": "Hi there"},
        {"role": "assistant", "content": "Hello world."},
        {"role": "user", "content": "And then?"},
    ]
    await call(app, "POST", "/v1/chat/completions", {"messages": spelled_out})
    assert desk.admitted[1].prompt_ids == desk.admitted[2].prompt_ids


async def test_a_streamed_response_is_kept_too(app: Quart) -> None:
    events = told(await call(app, "POST", ROUTE, HI | {"stream": True}))
    response = cast("Json", events[-1]["response"])
    assert (await call(app, "GET", f"{ROUTE}/{response['id']}")).json == response


async def test_what_is_not_to_be_stored_is_not(app: Quart) -> None:
    response = (await call(app, "POST", ROUTE, HI | {"store": False})).json
    assert (await call(app, "GET", f"{ROUTE}/{response['id']}")).status == 404


async def test_a_deleted_response_is_gone(app: Quart) -> None:
    path = f"{ROUTE}/{(await call(app, 'POST', ROUTE, HI)).json['id']}"
    assert (await call(app, "DELETE", path)).json["deleted"] is True
    assert (await call(app, "DELETE", path)).status == 404
    reply = await call(app, "POST", ROUTE, HI | {"previous_response_id": path.rpartition("/")[2]})
    assert (reply.status, reply.error["param"]) == (400, "previous_response_id")


BAD_BODIES: list[tuple[Json, str]] = [
    ({"input": []}, "input"),
    ({"input": 5}, "input"),
    ({"input": [{"role": "robot", "content": "Hi"}]}, "input.0.message.role"),
    ({"input": [{"type": "computer_call"}]}, "input.0"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        "input.0.message.content.0",
    ),
    ({"tools": [{"type": "web_search"}]}, "tools.0"),
    ({"tools": [{"type": "function", "name": "f"}] * 2}, "tools"),
    ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}] * 513}]}, "tools"),
    ({"tools": [{"type": "function", "name": "f"}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}}, "text.format.schema.not"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"pattern": "("}}}}, "text"),
    ({"input": "word " * 300}, "input"),
    ({"conversation": "c"}, "conversation"),
    ({"background": True}, "background"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"previous_response_id": "resp_unknown"}, "previous_response_id"),
    ({"mood": "good"}, "mood"),
]


async def test_an_item_that_is_not_known_is_told_what_there_is(app: Quart) -> None:
    for item in ({"type": "item_reference", "id": "x"}, {"type": 5}, "Hi"):
        reply = await call(app, "POST", ROUTE, {"input": [item]})
        assert reply.error["message"] == (
            "input.0: must be a message, a function_call, a function_call_output or a reasoning item"
        )


async def test_every_bad_body_is_a_400_that_names_the_field(app: Quart, desk: FakeDesk) -> None:
    for given, param in BAD_BODIES:
        reply = await call(app, "POST", ROUTE, HI | given)
        assert (reply.status, reply.error["param"]) == (400, param), given
    assert not desk.admitted


def writer_for(codec: HfCodec, **given: object) -> ResponsesWriter:
    current_call.set(Call("POST", ROUTE, id="0f"))
    body = ResponsesBody.model_validate(HI | given)
    kept: list[Json] = []
    return ResponsesWriter(
        id="resp_0f", model="m", body=body, codec=codec, temperature=1.0, top_p=1.0, keep=kept.append
    )


EVERYTHING: list[Part] = [
    Thinking("Let me "),
    Thinking("see."),
    Content("I shall look."),
    CallOpened(0, "call_a", "look"),
    CallArguments(0, '{"at":'),
    CallArguments(0, ' "it"}'),
    CallClosed(0),
    CallOpened(1, "call_b", "look"),
    CallArguments(1, '{"at"'),
]
COST = Cost(10, 4, 7, 2, 17)


def test_thinking_text_and_calls_are_items_of_their_own_and_a_cut_off_call_is_incomplete(codec: HfCodec) -> None:
    event = ChoiceEvent(0, tuple(EVERYTHING), (), Ending("length"))
    whole = writer_for(codec).whole([event], COST)
    assert [(item["type"], item["status"]) for item in cast("list[Json]", whole["output"])] == [
        ("reasoning", "completed"),
        ("message", "completed"),
        ("function_call", "completed"),
        ("function_call", "incomplete"),
    ]
    assert Response.model_validate(whole).status == "incomplete"


def test_a_stream_builds_what_the_whole_response_holds(codec: HfCodec) -> None:
    whole = writer_for(codec).whole([ChoiceEvent(0, tuple(EVERYTHING), (), Ending("tool_calls"))], COST)
    writer = writer_for(codec)
    frames = [*writer.opening()]
    for part in EVERYTHING:
        frames += writer.news(ChoiceEvent(0, (part,)))
    frames += [*writer.news(ChoiceEvent(0, (), (), Ending("tool_calls"))), *writer.closing(COST)]
    events = [orjson.loads(frame.split(b"data: ")[1]) for frame in frames]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == whole["output"] == events[-1]["response"]["output"]
    deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert deltas == ['{"at":', ' "it"}', '{"at"']


def test_a_call_of_a_function_in_a_namespace_names_it(codec: HfCodec) -> None:
    tools = [{"type": "namespace", "name": "eyes", "tools": [{"type": "function", "name": "look"}]}]
    whole = writer_for(codec, tools=tools).whole([ChoiceEvent(0, tuple(EVERYTHING[3:7]))], COST)
    (item,) = cast("list[Json]", whole["output"])
    assert (item["name"], item["namespace"]) == ("look", "eyes")


@pytest.mark.parametrize("levels", [20, 260])
async def test_a_call_nested_without_end_can_be_gone_on_from(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str, levels: int
) -> None:
    desk.model_facts = replace(API_FACTS, context_tokens=4096)
    app = make_app(desk, fresh_codec, anyio_backend, tool_call_parser="hermes")
    deep = "[" * levels + "]" * levels
    desk.script = says(f'<tool_call>\n{{"name": "look", "arguments": {{"at": {deep}}}}}\n</tool_call>')
    first = (await call(app, "POST", ROUTE, HI | {"tools": [{"type": "function", "name": "look"}]})).json
    assert cast("list[Json]", first["output"])[0]["arguments"] == f'{{"at": {deep}}}'
    desk.script = says("Hello world.")
    reply = await call(app, "POST", ROUTE, HI | {"previous_response_id": first["id"]})
    assert reply.status == 200


def test_items_of_one_turn_are_one_message() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Look "}, {"type": "input_text", "text": "there"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]},
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": '{"at": "it"}'},
        {"type": "function_call_output", "call_id": "a", "output": "A cat."},
    ]
    user, assistant, tool = messages_of(ResponsesBody.model_validate({"input": items}).input)
    assert (user.role, user.content) == ("user", "Look there")
    assert (assistant.reasoning_content, assistant.content) == ("Hm.", "Yes.")
    assert assistant.tool_calls[0].function.arguments == {"at": "it"}
    assert (tool.role, tool.content, tool.tool_call_id) == ("tool", "A cat.", "a")


def test_the_store_forgets_what_was_not_used_for_longest() -> None:
    store = ResponseStore(most=2)
    for name in "ab":
        store.put(name, StoredResponse(b"{}", ()))
    assert store.get("a")
    store.put("c", StoredResponse(b"{}", ()))
    assert [name for name in "abc" if store.get(name)] == ["a", "c"]


LONG = "x" * 200
CALL = ToolCall(id="1", function=CalledFunction(name="f", arguments=f'{{"a": "{LONG}"}}'))


@pytest.mark.parametrize(
    "stored",
    [
        StoredResponse(b"{}", [Message(role="user", content=LONG)]),
        StoredResponse(b"{}", [Message(role="assistant", content="", reasoning_content=LONG)]),
        StoredResponse(b"{}", [Message(role="assistant", tool_calls=[CALL])]),
        StoredResponse(LONG.encode(), [Message(role="user", content="")]),
    ],
)
def test_the_store_is_bounded_by_all_that_it_keeps(stored: StoredResponse) -> None:
    store = ResponseStore(most_characters=1_000)
    for name in range(20):
        store.put(str(name), stored)
    assert 2 <= len(store) <= 3
    assert store.drop("19")
    assert not store.drop("19")


def test_what_is_more_than_the_store_may_hold_is_not_kept() -> None:
    store = ResponseStore(most_characters=1_000)
    store.put("a", StoredResponse(b"x" * 1_000, ()))
    store.put("b", StoredResponse(b"x" * 1_001, ()))
    assert [name for name in "ab" if store.get(name)] == ["a"]


async def test_a_response_is_got_as_it_was_sent(app: Quart) -> None:
    sent = await call(app, "POST", ROUTE, HI | {"instructions": "Be brief."})
    assert (await call(app, "GET", f"{ROUTE}/{sent.json['id']}")).body == sent.body


async def test_the_official_client_reads_whole_responses_and_streams(app: Quart, desk: FakeDesk) -> None:
    def use(port: int) -> None:
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none") as client:
            whole = client.responses.create(model="default", input="Hi there")
            assert whole.output_text == "Hello world."
            assert client.responses.retrieve(whole.id).output_text == "Hello world."
            with client.responses.stream(model="default", input="Hi", previous_response_id=whole.id) as stream:
                assert stream.get_final_response().output_text == "Hello world."

    async with served(app) as port:
        await run_sync(use, port)
    assert len(desk.admitted) == 2


async def test_a_function_is_offered_to_the_model(fresh_codec: HfCodec, anyio_backend: str) -> None:
    desk = FakeDesk(model_facts=replace(API_FACTS, context_tokens=4096))
    app = make_app(desk, fresh_codec, anyio_backend, enable_auto_tool_choice=True)
    tools = [{"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}]
    reply = await call(app, "POST", ROUTE, HI | {"tools": tools})
    assert reply.json["tools"] == [
        {"type": "function", "name": "look", "description": None, "parameters": {"type": "object"}, "strict": True}
    ]
    await call(app, "POST", ROUTE, HI)
    offered, alone = (request.prompt_ids for request in desk.admitted)
    assert len(offered) > len(alone)
