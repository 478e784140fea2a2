"""POST /v1/chat/completions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, assert_never

from quart import Blueprint, Response

from api.answer import Json, answer
from api.body import read_body
from api.choices import ChoicesWriter, new_id, stop_reason
from api.context import ApiContext
from api.diagnostics import diagnosis
from api.exchange import ChoiceEvent
from api.logprobs import chat_logprobs
from api.parsers.parts import CallArguments, CallClosed, CallOpened, Content, Part, Thinking
from api.questions import Questions
from api.schema.chat import ChatBody
from api.text.codec import TextCodec


def chat_routes(context: ApiContext, questions: Questions) -> Blueprint:
    """The next turn of a conversation."""
    routes = Blueprint("chat", __name__)

    @routes.post("/v1/chat/completions")
    async def create() -> Response:
        arrived_at = context.desk.now()
        body = await read_body(ChatBody)
        context.check_model(body.model)
        writer = ChatWriter(
            id=new_id("chatcmpl"),
            model=context.model_id,
            n=body.n,
            include_usage=body.include_usage,
            diagnosis=diagnosis(body, context),
            codec=context.codec,
            scored=body.logprobs,
            reasons=context.settings.reasoning_parser is not None,
        )
        return await answer(context, await questions.question(body, arrived_at=arrived_at), writer)

    return routes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatWriter(ChoicesWriter):
    """OpenAI's chat.completion and chat.completion.chunk."""

    codec: TextCodec
    scored: bool
    """Whether log-probabilities were asked for."""
    reasons: bool
    """Whether thinking is told apart: then it is null where there is none, for clients read it unasked."""

    whole_object: ClassVar[str] = "chat.completion"
    chunk_object: ClassVar[str] = "chat.completion.chunk"

    def first(self, index: int) -> Json:
        """See ChoicesWriter: who speaks."""
        return self._delta_chunk(index, {"role": "assistant", "content": ""})

    def chunks(self, event: ChoiceEvent) -> Iterator[Json]:
        """See ChoicesWriter: log-probabilities come with the first delta, and the end of a choice is a chunk of its
        own, with an empty delta."""
        deltas = [delta for part in event.parts if (delta := _delta(part))]
        logprobs = chat_logprobs(event.scored, self.codec) if event.scored else None
        if logprobs and not deltas:
            deltas = [{"content": ""}]
        for delta in deltas:
            yield self._delta_chunk(event.index, delta, logprobs=logprobs)
            logprobs = None
        if event.ending:
            yield self._delta_chunk(event.index, {}, finish_reason=event.ending.reason) | stop_reason(event.ending)

    def choice(self, event: ChoiceEvent) -> Json:
        """See ChoicesWriter."""
        return {
            "index": event.index,
            "message": self._no_thinking | _message(event.parts),
            "logprobs": chat_logprobs(event.scored, self.codec) if self.scored else None,
            "finish_reason": event.ending.reason if event.ending else None,
            **stop_reason(event.ending),
        }

    def _delta_chunk(
        self, index: int, delta: Json, *, logprobs: Mapping[str, object] | None = None, finish_reason: str | None = None
    ) -> Json:
        delta = self._no_thinking | delta
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}

    @property
    def _no_thinking(self) -> Json:
        return _thinking(None) if self.reasons else {}


def _message(parts: Sequence[Part]) -> Json:
    """The assistant's turn: with calls, content that is nothing but blanks is none."""
    content = "".join(part.text for part in parts if isinstance(part, Content))
    thinking = "".join(part.text for part in parts if isinstance(part, Thinking))
    calls = [_call(part, parts) for part in parts if isinstance(part, CallOpened)]
    message: Json = {"role": "assistant", "content": None if calls and not content.strip() else content}
    if thinking:
        message |= _thinking(thinking)
    return message | {"tool_calls": calls} if calls else message


def _call(opened: CallOpened, parts: Sequence[Part]) -> Json:
    pieces = (part.text for part in parts if isinstance(part, CallArguments) and part.index == opened.index)
    return {
        "id": opened.id,
        "type": "function",
        "function": {"name": opened.name, "arguments": "".join(pieces)},
    }


def _thinking(text: str | None) -> Json:
    """Clients read it under either name."""
    return {"reasoning": text, "reasoning_content": text}


def _delta(part: Part) -> Json | None:
    match part:
        case Thinking(text):
            return _thinking(text)
        case Content(text):
            return {"content": text}
        case CallOpened(index, id, name):
            function = {"name": name, "arguments": ""}
            return {"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}
        case CallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
        case CallClosed():
            return None
        case _:
            assert_never(part)
