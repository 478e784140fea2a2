"""A model's chat template, and conversations put so that it can render them, whatever it knows of tools."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

from api.errors import bad_request
from api.text.abilities import SHORT_ID, Render, try_out
from api.text.conversation import ChatMessage, Conversation
from api.text.shield import MARKS
from api.text.tool_text import as_json, spelling_of

LONGEST_REFUSAL = 1_000
"""Characters of a template's words that go back to a client; some templates repeat what they refuse."""

_WITHOUT_MARKS = dict.fromkeys(map(ord, MARKS))


class ChatTemplate:
    """Renders conversations, whatever the template knows of tools."""

    def __init__(self, source: str, render: Render) -> None:
        self._render = render
        self._spelling = spelling_of(source)
        self.abilities = try_out(render)

    def render(self, conversation: Conversation) -> str:
        """The conversation in the model's own format, ready for the assistant's turn.

        Raises:
            ApiError: 400; the template refuses the conversation. The words are its own.
            RecursionError: it is nested too deeply.
        """
        try:
            if conversation.tools or any("tool_calls" in m or m.get("role") == "tool" for m in conversation.messages):
                conversation = self._fitted(conversation)
            return self._render(conversation.messages, conversation.tools, conversation.template_kwargs)
        except RecursionError:
            raise
        # A template is a program that came with the model: whatever it raises, it raises about the messages.
        except Exception as error:
            words = str(error).translate(_WITHOUT_MARKS)[:LONGEST_REFUSAL]
            raise bad_request(f"The chat template refused the messages: {words}", param="messages") from None

    def render_begun(self, conversation: Conversation, end: str) -> str:
        """The conversation up to the end of its last message, for the model to go on with; `end` is in none of it.

        Raises:
            ApiError: 400; the template refuses the conversation, or does not write the last message.
        """
        *others, last = conversation.messages
        begun = {**last, "content": f"{last['content']}{end}"}
        text, found, _ = self.render(replace(conversation, messages=[*others, begun])).rpartition(end)
        if not found:
            problem = "The chat template has no place for an answer that is begun by the last message."
            raise bad_request(problem, param="messages")
        return text

    def _fitted(self, conversation: Conversation) -> Conversation:
        """The conversation with what the template cannot do done for it."""
        can = self.abilities
        messages = [*_named(conversation.messages)]
        if can.short_ids:
            messages = [_with_short_ids(message) for message in messages]
        if not can.calls:
            messages = [self._with_written_calls(message) for message in messages]
        elif not can.parallel_calls:
            messages = _one_call_each(messages)
        if can.text_arguments:
            messages = [_with_text_arguments(message) for message in messages]
        if not can.results:
            messages = self._with_written_results(messages)
        if conversation.tools and not can.offers:
            offer = self._spelling.offer(conversation.tools)
            return replace(conversation, messages=_told(messages, offer, system=can.system), tools=())
        return replace(conversation, messages=messages)

    def _with_written_calls(self, message: ChatMessage) -> ChatMessage:
        calls = message.get("tool_calls")
        if not isinstance(calls, list):
            return message
        written = self._spelling.calls([call["function"] for call in calls])
        content = f"{message['content']}\n{written}" if message["content"] else written
        return {name: value for name, value in message.items() if name != "tool_calls"} | {"content": content}

    def _with_written_results(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """Results as messages of the user, those in a row as one."""
        written: list[ChatMessage] = []
        follows = False
        for message in messages:
            if message["role"] != "tool":
                written.append(message)
                follows = False
                continue
            result = self._spelling.result(str(message["content"]))
            if follows:
                written[-1] = {**written[-1], "content": f"{written[-1]['content']}\n{result}"}
            else:
                written.append({"role": "user", "content": result})
            follows = True
        return written


def _named(messages: Sequence[ChatMessage]) -> Iterator[ChatMessage]:
    """Messages of tools with the name of the function whose call they answer: some templates write it."""
    names: dict[object, object] = {}
    for message in messages:
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            names |= {call["id"]: call["function"]["name"] for call in calls}
        name = names.get(message.get("tool_call_id"))
        yield {"name": name, **message} if message["role"] == "tool" and name else message


def _one_call_each(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Several calls of one message as messages of their own, each before the results that answer it."""
    split: list[ChatMessage] = []
    rest = deque(messages)
    while rest:
        message = rest.popleft()
        calls = message.get("tool_calls")
        if not isinstance(calls, list) or len(calls) < 2:
            split.append(message)
            continue
        results = []
        while rest and rest[0]["role"] == "tool":
            results.append(rest.popleft())
        for call in calls:
            split.append({**message, "tool_calls": [call]})
            split += [result for result in results if result["tool_call_id"] == call["id"]]
            message = {"role": "assistant", "content": ""}
        ids = [call["id"] for call in calls]
        split += [result for result in results if result["tool_call_id"] not in ids]
    return split


def _with_short_ids(message: ChatMessage) -> ChatMessage:
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        return {**message, "tool_calls": [{**call, "id": _short(call["id"])} for call in calls]}
    if message["role"] == "tool":
        return {**message, "tool_call_id": _short(str(message["tool_call_id"]))}
    return message


def _short(call_id: str) -> str:
    return call_id if SHORT_ID.fullmatch(call_id) else sha256(call_id.encode()).hexdigest()[:9]


def _with_text_arguments(message: ChatMessage) -> ChatMessage:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [{**call, "function": _in_text(call["function"])} for call in calls]}


def _in_text(function: dict[str, object]) -> dict[str, object]:
    return {**function, "arguments": as_json(function["arguments"])}


def _told(messages: Sequence[ChatMessage], offer: str, *, system: bool) -> list[ChatMessage]:
    """The messages with `offer` at the end of the system message, or in one of its own, or before the first message."""
    first, *rest = messages
    if first["role"] == "system":
        return [{**first, "content": f"{first['content']}\n\n{offer}"}, *rest]
    if system:
        return [{"role": "system", "content": offer}, *messages]
    return [{**first, "content": f"{offer}\n\n{first['content']}"}, *rest]
