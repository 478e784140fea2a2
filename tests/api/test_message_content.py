"""Parts of a reply as blocks of a message: whole, and as the events that Anthropic's clients put together."""

from collections.abc import Sequence
from typing import cast

import orjson
import pytest

from api.message_content import BlockStream, blocks_of
from api.parsers.parts import CallArguments, CallClosed, CallOpened, Content, Part, Thinking, joined

Json = dict[str, object]

CALL = (CallOpened(0, "c0", "f"), CallArguments(0, '{"a":'), CallArguments(0, ' [1, "x"]}'), CallClosed(0))
SECOND = (CallOpened(1, "c1", "g"), CallArguments(1, "{}"), CallClosed(1))
USED: Json = {"type": "tool_use", "id": "c0", "name": "f", "input": {"a": [1, "x"]}}
USED_TOO: Json = {"type": "tool_use", "id": "c1", "name": "g", "input": {}}

REPLIES: list[tuple[Sequence[Part], list[Json]]] = [
    ([], []),
    ([Content("Hello"), Content(" there")], [{"type": "text", "text": "Hello there"}]),
    (
        [Thinking("Hm"), Thinking("."), Content("\n\nYes.")],
        [
            {"type": "thinking", "thinking": "Hm.", "signature": ""},
            {"type": "text", "text": "\n\nYes."},
        ],
    ),
    ([*CALL], [USED]),
    ([*CALL, *SECOND], [USED, USED_TOO]),
    ([*CALL, Content("\n"), *SECOND, Content("\n")], [USED, USED_TOO]),
    (
        [Content("First "), *CALL, Content("\nthen"), *SECOND, Content("end")],
        [
            {"type": "text", "text": "First "},
            USED,
            {"type": "text", "text": "\nthen"},
            USED_TOO,
            {"type": "text", "text": "end"},
        ],
    ),
    ([Thinking("Hm"), Content("\n"), *CALL], [{"type": "thinking", "thinking": "Hm", "signature": ""}, USED]),
    ([Content("\n"), Content(" ")], [{"type": "text", "text": "\n "}]),
]


def put_together(events: Sequence[Json]) -> list[Json]:
    """The blocks that a client makes of the events; every rule of their order is checked."""
    blocks: list[Json] = []
    inputs: dict[int, str] = {}
    is_open = False
    for event in events:
        match event:
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                assert not is_open
                assert index == len(blocks)
                is_open = True
                blocks.append(block)
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)}:
                assert is_open
                assert index == len(blocks) - 1
                _apply(blocks[-1], cast("dict[str, str]", delta), inputs, index)
            case {"type": "content_block_stop", "index": int(index)}:
                assert is_open
                assert index == len(blocks) - 1
                is_open = False
            case _:
                raise AssertionError(event)
    assert not is_open
    return blocks


def _apply(block: Json, delta: dict[str, str], inputs: dict[int, str], index: int) -> None:
    match delta["type"], block["type"]:
        case "text_delta", "text":
            block["text"] = str(block["text"]) + delta["text"]
        case "thinking_delta", "thinking":
            block["thinking"] = str(block["thinking"]) + delta["thinking"]
        case "signature_delta", "thinking":
            block["signature"] = delta["signature"]
        case "input_json_delta", "tool_use":
            inputs[index] = inputs.get(index, "") + delta["partial_json"]
            if inputs[index].endswith("}"):
                block["input"] = orjson.loads(inputs[index])
        case kinds:
            raise AssertionError(kinds)


def streamed(parts: Sequence[Part], *, shows_thinking: bool = True, one_by_one: bool = True) -> list[Json]:
    stream = BlockStream(shows_thinking=shows_thinking)
    pieces = [[part] for part in parts] if one_by_one else [parts]
    events = [event for piece in pieces for event in stream.take(piece)]
    return [*events, *stream.end()]


@pytest.mark.parametrize(("parts", "blocks"), REPLIES)
def test_a_whole_reply_has_these_blocks(parts: Sequence[Part], blocks: list[Json]) -> None:
    assert blocks_of(joined(parts), shows_thinking=True) == blocks


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize(("parts", "blocks"), REPLIES)
def test_a_stream_builds_the_same_blocks(parts: Sequence[Part], blocks: list[Json], one_by_one: bool) -> None:
    assert put_together(streamed(parts, one_by_one=one_by_one)) == blocks


def test_a_block_of_a_call_begins_without_input_and_with_an_empty_delta() -> None:
    first, second, *others = streamed(CALL)
    assert first == {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "tool_use", "id": "c0", "name": "f", "input": {}},
    }
    assert second["delta"] == {"type": "input_json_delta", "partial_json": ""}
    assert [cast("Json", event["delta"])["partial_json"] for event in others[:-1]] == ['{"a":', ' [1, "x"]}']


def test_thinking_ends_with_its_signature() -> None:
    events = streamed([Thinking("Hm"), Content("Yes")])
    deltas = [cast("Json", event["delta"])["type"] for event in events if event["type"] == "content_block_delta"]
    assert deltas == ["thinking_delta", "signature_delta", "text_delta"]


def test_thinking_that_nobody_wants_to_see_leaves_an_empty_block() -> None:
    parts: list[Part] = [Thinking("secret"), Content("Yes")]
    blocks = [{"type": "thinking", "thinking": "", "signature": ""}, {"type": "text", "text": "Yes"}]
    assert blocks_of(parts, shows_thinking=False) == blocks
    assert put_together(streamed(parts, shows_thinking=False)) == blocks


BROKEN = ["5", "'a'", '{"a": tru3}', '{"a": 1} and so on', "{'a': 1}", '["a"]']


@pytest.mark.parametrize("arguments", BROKEN)
def test_a_malformed_call_is_text_and_its_input_never_stops_being_the_beginning_of_json(arguments: str) -> None:
    parts: list[Part] = [
        CallOpened(0, "c0", "f"),
        *(CallArguments(0, letter) for letter in arguments),
        Content("Sorry."),
    ]
    text = [{"type": "text", "text": f"f {arguments}"}, {"type": "text", "text": "Sorry."}]
    assert blocks_of(joined(parts), shows_thinking=True) == text
    events = streamed(parts)
    told = "".join(str(cast("Json", event.get("delta", {})).get("partial_json", "")) for event in events)
    assert arguments.startswith(told)
    assert told != arguments
    assert [block for block in put_together(events) if block["type"] == "text"] == text


def test_a_call_that_is_cut_off_is_text_if_whole_and_ends_where_it_was_cut_if_streamed() -> None:
    parts: list[Part] = [CallOpened(0, "c0", "f"), CallArguments(0, '{"a": "b')]
    assert blocks_of(parts, shows_thinking=True) == [{"type": "text", "text": 'f {"a": "b'}]
    *_, last, stop = streamed(parts)
    assert last["delta"] == {"type": "input_json_delta", "partial_json": '{"a": "b'}
    assert stop["type"] == "content_block_stop"


@pytest.mark.parametrize(
    "arguments", ['{"a": "\\ud83d"}', '{"a":' * 300 + "1" + "}" * 300, '{"a":' * 2000 + "1" + "}" * 2000]
)
def test_input_that_no_json_can_carry_is_text(arguments: str) -> None:
    parts: list[Part] = [CallOpened(0, "c0", "f"), CallArguments(0, arguments), CallClosed(0)]
    assert blocks_of(parts, shows_thinking=True) == [{"type": "text", "text": f"f {arguments}"}]
