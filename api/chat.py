"""POST /v1/chat/completions."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from quart import Blueprint, Response

from api.answer import Json, answer
from api.body import read_body
from api.context import ApiContext
from api.exchange import ChoiceEvent
from api.logprobs import chat_logprobs
from api.schema.chat import ChatBody
from api.text.codec import TextCodec


def chat_routes(context: ApiContext) -> Blueprint:
    """The next turn of a conversation."""
    routes = Blueprint("chat", __name__)

    @routes.post("/v1/chat/completions")
    async def create() -> Response:
        arrived_at = context.desk.now()
        body = await read_body(ChatBody)
        context.check_model(body.model)
        messages = [message.for_template() for message in body.messages]
        prompt = await context.codec.chat_prompt(messages, template_kwargs=body.chat_template_kwargs)
        return await answer(context, body, [prompt.token_ids], ChatFormat(context.codec), arrived_at=arrived_at)

    return routes


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """OpenAI's chat.completion and chat.completion.chunk."""

    codec: TextCodec
    prefix: ClassVar[str] = "chatcmpl"
    whole_object: ClassVar[str] = "chat.completion"
    chunk_object: ClassVar[str] = "chat.completion.chunk"

    def opening(self, index: int) -> Json:
        """See Format: who speaks."""
        return _chunk(index, {"role": "assistant", "content": ""})

    def news(self, event: ChoiceEvent) -> Iterator[Json]:
        """See Format: the end of a choice is a chunk of its own, with an empty delta."""
        if event.text or event.scored:
            yield _chunk(event.index, {"content": event.text}, logprobs=chat_logprobs(event.scored, self.codec))
        if event.finish_reason:
            yield _chunk(event.index, {}, finish_reason=event.finish_reason)

    def whole(self, event: ChoiceEvent) -> Json:
        """See Format."""
        return {
            "index": event.index,
            "message": {"role": "assistant", "content": event.text},
            "logprobs": chat_logprobs(event.scored, self.codec),
            "finish_reason": event.finish_reason,
        }


def _chunk(
    index: int, delta: dict[str, str], *, logprobs: Json | None = None, finish_reason: str | None = None
) -> Json:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
