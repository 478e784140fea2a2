"""From the messages of Anthropic's API to those of a chat: turns are put together, and calls find their results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, Literal

from pydantic import model_validator
from pydantic.json_schema import JsonSchemaValue

from api.schema.base import Body, wrong
from api.schema.chat import Message
from api.schema.message_blocks import (
    KINDS,
    Block,
    Blocks,
    TextBlock,
    TextLike,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    paragraphs,
)
from api.schema.rules import Rules, all_of, either, has, says
from api.schema.tools import CalledFunction, ToolCall


def _text(blocks: Sequence[Block]) -> str:
    return paragraphs(block.as_text for block in blocks if isinstance(block, TextLike))


def _says_only(role: str, kinds: Sequence[str]) -> JsonSchemaValue:
    least = 0 if role == "assistant" else 1
    blocks: JsonSchemaValue = {"items": {"properties": {"type": {"enum": list(kinds)}}}}
    content = either({"type": "string", "minLength": least}, {"type": "array", "minItems": least, **blocks})
    return all_of(says("role", role), has("content", content))


class InputMessage(Body):
    """Something that was said."""

    rules: ClassVar[Rules] = (either(*(_says_only(role, kinds) for role, kinds in KINDS.items())),)

    role: Literal["user", "assistant", "system"]
    content: Blocks

    @property
    def text(self) -> str:
        return _text(self.content)

    @model_validator(mode="after")
    def _blocks_fit_the_role(self) -> "InputMessage":
        for at, block in enumerate(self.content):
            if block.type not in KINDS[self.role]:
                speaker = next(role for role, kinds in KINDS.items() if block.type in kinds)
                raise wrong(f"`{block.type}` blocks can only be in `{speaker}` messages", at=f"content.{at}")
        return self


@dataclass(frozen=True, slots=True)
class Turn:
    """All that one side said before the other spoke again."""

    at: int
    """Where it begins among the messages."""
    role: Literal["user", "assistant"]
    blocks: Sequence[Block]

    @property
    def text(self) -> str:
        return _text(self.blocks)

    @property
    def calls(self) -> list[ToolUseBlock]:
        return [block for block in self.blocks if isinstance(block, ToolUseBlock)]

    @property
    def results(self) -> list[ToolResultBlock]:
        return [block for block in self.blocks if isinstance(block, ToolResultBlock)]


def introduction(messages: Sequence[InputMessage]) -> str:
    """What messages of the system say before anybody speaks."""
    return paragraphs(message.text for message in _leading(messages))


def turns_of(messages: Sequence[InputMessage]) -> list[Turn]:
    """The turns behind the introduction: neighbours of one role are one turn, as Anthropic's API has it.

    Most chat templates have no place for a message of the system between the turns. There it joins what the user says,
    between the tags in which Claude Code has always put such messages.
    """
    begin = len(_leading(messages))
    numbered = enumerate(messages[begin:], start=begin)
    return [
        Turn(together[0][0], role, [block for _, message in together for block in _blocks(message)])
        for role, group in groupby(numbered, lambda each: _speaker(each[1]))
        if (together := list(group))
    ]


def _speaker(message: InputMessage) -> Literal["user", "assistant"]:
    return "assistant" if message.role == "assistant" else "user"


def _blocks(message: InputMessage) -> Sequence[Block]:
    return [_reminder(message)] if message.role == "system" and message.content else message.content


def check_results(turns: Sequence[Turn]) -> None:
    """Every call is answered in the next turn, once, and nothing else is.

    Raises:
        PydanticCustomError: one is not, in Anthropic's own words.
    """
    open_calls: dict[str, int] = {}
    for turn in turns:
        for result in turn.results:
            if open_calls.pop(result.tool_use_id, None) is None:
                problem = f"unexpected `tool_use_id` found in `tool_result` blocks: {result.tool_use_id[:100]}"
                raise wrong(f"{problem}. Each must answer a `tool_use` block of the message before.", at=_path(turn.at))
        _refuse_open(open_calls)
        open_calls = {call.id: turn.at for call in turn.calls}
    _refuse_open(open_calls)


def _refuse_open(calls: dict[str, int]) -> None:
    for call_id, at in calls.items():
        problem = f"`tool_use` ids were found without `tool_result` blocks immediately after: {call_id[:100]}"
        raise wrong(f"{problem}. Each must be answered in the next message.", at=_path(at))


def _path(at: int) -> str:
    return f"messages.{at}"


def chat_messages(system: str, turns: Sequence[Turn]) -> Iterator[Message]:
    """The same as a chat: results are messages of their own, before what else the user says."""
    if system:
        yield Message(role="system", content=system)
    for turn in turns:
        if turn.role == "assistant":
            yield _assistant(turn)
        else:
            for result in turn.results:
                yield Message(role="tool", tool_call_id=result.tool_use_id, content=result.as_text)
            if turn.text or not turn.results:
                yield Message(role="user", content=turn.text)


def _assistant(turn: Turn) -> Message:
    thinking = paragraphs(block.thinking for block in turn.blocks if isinstance(block, ThinkingBlock))
    return Message(
        role="assistant",
        content=turn.text,
        reasoning_content=thinking or None,
        tool_calls=[_call(call) for call in turn.calls],
    )


def _call(call: ToolUseBlock) -> ToolCall:
    # Not validated again: arguments would have to be JSON text.
    return ToolCall(id=call.id, function=CalledFunction.model_construct(name=call.name, arguments=call.input))


def _leading(messages: Sequence[InputMessage]) -> Sequence[InputMessage]:
    others = (at for at, message in enumerate(messages) if message.role != "system")
    return messages[: next(others, len(messages))]


def _reminder(message: InputMessage) -> TextBlock:
    return TextBlock(type="text", text=f"<system-reminder>\n{message.text}\n</system-reminder>")
