"""POST /v1/completions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from quart import Blueprint, Response

from api.answer import Json, Question, answer
from api.body import read_body
from api.choices import ChoicesWriter, new_id, stop_reason
from api.context import ApiContext
from api.diagnostics import diagnosis
from api.exchange import ChoiceEvent
from api.logprobs import completion_logprobs, echoed
from api.parsers.parts import Content
from api.parsers.plain import PlainReader
from api.sampling import check_prompts
from api.schema.completions import CompletionBody, Prompt
from api.text.choice import Reading
from api.text.codec import TextCodec

READING = Reading(PlainReader, scored_end=True)
"""Evaluation harnesses count on a score for every token: lm-evaluation-harness (lm_eval/models/openai_completions.py)
asks for one token behind a scored echo, and takes all scores but the last for the prompt's."""


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
            diagnosis=diagnosis(body, context),
            codec=codec,
            scored_echo=body.score_prompt is not None,
            echoes=[_text(prompt, codec) for prompt in body.prompt for _ in range(body.n)] if body.echo else [],
        )
        question = Question(body, prompts, arrived_at, READING, score_prompt=body.score_prompt)
        return await answer(context, question, writer)

    return routes


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionWriter(ChoicesWriter):
    """OpenAI's text_completion."""

    codec: TextCodec
    scored_echo: bool
    echoes: Sequence[str]
    """What each choice's text begins with; empty where that is nothing."""

    whole_object: ClassVar[str] = "text_completion"
    chunk_object: ClassVar[str] = "text_completion"

    def first(self, index: int) -> Json | None:
        """See ChoicesWriter: the prompt, if it is to be echoed; a scored one comes with its scores."""
        echo = self._echo(index)
        return self._choice(ChoiceEvent(index), before=echo) if echo and not self.scored_echo else None

    def chunks(self, event: ChoiceEvent) -> Iterator[Json]:
        """See ChoicesWriter."""
        yield self._choice(event, before=self._echo(event.index) if event.prompt else "")

    def choice(self, event: ChoiceEvent) -> Json:
        """See ChoicesWriter."""
        return self._choice(event, before=self._echo(event.index))

    def _echo(self, index: int) -> str:
        return self.echoes[index] if self.echoes else ""

    def _choice(self, event: ChoiceEvent, *, before: str) -> Json:
        echo = self._echo(event.index)
        scored = [
            *echoed(event.prompt, echo, self.codec),
            *(replace(each, offset=len(echo) + each.offset) for each in event.scored),
        ]
        return {
            "index": event.index,
            "text": before + "".join(part.text for part in event.parts if isinstance(part, Content)),
            "logprobs": completion_logprobs(scored, self.codec),
            "finish_reason": event.ending.reason if event.ending else None,
            **stop_reason(event.ending),
        }


def _text(prompt: Prompt, codec: TextCodec) -> str:
    return prompt if isinstance(prompt, str) else codec.text_of(prompt)
