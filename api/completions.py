"""POST /v1/completions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from quart import Blueprint, Response

from api.answer import Json, Question, answer
from api.body import read_body
from api.choices import ChoicesWriter, new_id
from api.context import ApiContext
from api.exchange import ChoiceEvent
from api.logprobs import completion_logprobs
from api.parsers.parts import Content
from api.sampling import check_prompts
from api.schema.completions import CompletionBody, Prompt
from api.text.codec import TextCodec


def completion_routes(context: ApiContext) -> Blueprint:
    """The continuation of a text."""
    routes = Blueprint("completions", __name__)
    codec = context.codec

    @routes.post("/v1/completions")
    async def create() -> Response:
        arrived_at = context.desk.now()
        body = await read_body(CompletionBody)
        context.check_model(body.model)
        prompts = [await codec.prompt_ids(prompt) if isinstance(prompt, str) else prompt for prompt in body.prompt]
        check_prompts(body, prompts, context)
        writer = CompletionWriter(
            id=new_id("cmpl"),
            model=context.model_id,
            n=len(prompts) * body.n,
            include_usage=body.include_usage,
            codec=codec,
            echoes=[_text(prompt, codec) for prompt in body.prompt for _ in range(body.n)] if body.echo else [],
        )
        return await answer(context, Question(body, prompts, arrived_at), writer)

    return routes


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionWriter(ChoicesWriter):
    """OpenAI's text_completion."""

    codec: TextCodec
    echoes: Sequence[str]
    """What each choice's text begins with; empty where that is nothing."""

    whole_object: ClassVar[str] = "text_completion"
    chunk_object: ClassVar[str] = "text_completion"

    def first(self, index: int) -> Json | None:
        """See ChoicesWriter: the prompt, if it is to be echoed."""
        return _choice(ChoiceEvent(index, (Content(self.echoes[index]),)), None) if self.echoes else None

    def chunks(self, event: ChoiceEvent) -> Iterator[Json]:
        """See ChoicesWriter."""
        yield _choice(event, completion_logprobs(event.scored, self.codec))

    def choice(self, event: ChoiceEvent) -> Json:
        """See ChoicesWriter."""
        echo = self.echoes[event.index] if self.echoes else ""
        choice = _choice(event, completion_logprobs(event.scored, self.codec))
        return choice | {"text": echo + _content(event)}


def _choice(event: ChoiceEvent, logprobs: Json | None) -> Json:
    return {
        "index": event.index,
        "text": _content(event),
        "logprobs": logprobs,
        "finish_reason": event.ending.reason if event.ending else None,
    }


def _content(event: ChoiceEvent) -> str:
    return "".join(part.text for part in event.parts if isinstance(part, Content))


def _text(prompt: Prompt, codec: TextCodec) -> str:
    return prompt if isinstance(prompt, str) else codec.text_of(prompt)
