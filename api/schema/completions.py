"""POST /v1/completions: what a client may send, as OpenAI's API reference has it."""

from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from pydantic import PlainValidator, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue

from api.schema.base import wrong
from api.schema.generation import GenerationBody
from api.schema.rules import Rules, either, says

Prompt = str | tuple[int, ...]
"""One prompt: text, or token ids."""

MOST_PROMPTS = 64

TOKEN_ID: JsonSchemaValue = {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}


def _prompts(value: object) -> list[Prompt]:
    """`prompt` is a string, a list of strings, a list of ids, or a list of lists of ids."""
    if isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int):
        return [_prompt(value, at=None)]
    if not isinstance(value, list):
        raise wrong("must be a string, a list of strings, a list of token ids, or a list of such lists")
    if not 1 <= len(value) <= MOST_PROMPTS:
        raise wrong(f"must hold 1 to {MOST_PROMPTS} prompts")
    return [_prompt(prompt, at=str(index)) for index, prompt in enumerate(value)]


def _prompt(value: object, *, at: str | None) -> Prompt:
    if not isinstance(value, str | list):
        raise wrong("must be a string or a list of token ids", at=at)
    if not value:
        raise wrong("must not be empty", at=at)
    if isinstance(value, str):
        return value
    # `type` because a bool is an int, too.
    if any(type(token_id) is not int or token_id < 0 for token_id in value):
        raise wrong("must hold nothing but token ids", at=at)
    return tuple(value)


ONE_PROMPT = either({"type": "string", "minLength": 1}, {"type": "array", "minItems": 1, "items": TOKEN_ID})
PROMPTS = WithJsonSchema(
    either(*ONE_PROMPT["anyOf"], {"type": "array", "minItems": 1, "maxItems": MOST_PROMPTS, "items": ONE_PROMPT})
)


class CompletionBody(GenerationBody):
    """Prompts that want to be continued."""

    prompt_field: ClassVar[str] = "prompt"
    rules: ClassVar[Rules] = (
        *GenerationBody.rules,
        either({"properties": {"max_tokens": {"not": {"const": 0}}}}, says("echo", True)),
    )

    prompt: Annotated[list[Prompt], PlainValidator(_prompts), PROMPTS]
    echo: bool = False
    """Send the prompt before the completion."""
    logprobs: Annotated[int, Ge(0), Le(5)] | None = None
    """Tell how likely each token was, those of an echo too, beside so many of the likeliest."""
    max_tokens: Annotated[int, Ge(0)] | None = None
    best_of: Annotated[int, Ge(1), Le(16)] | None = None
    suffix: Annotated[str, WithJsonSchema({"const": ""})] = ""

    @model_validator(mode="after")
    def _honoured(self) -> "CompletionBody":
        if self.max_tokens == 0 and not self.echo:
            raise wrong("may be 0 only with echo", at="max_tokens")
        if self.best_of not in (None, 1, self.n):
            raise wrong("is not supported beyond n: every choice is sent", at="best_of")
        if self.suffix:
            raise wrong("is not supported: the model does not fill in the middle", at="suffix")
        return self

    @property
    def top_logprobs_asked(self) -> int | None:
        """See GenerationBody."""
        return self.logprobs

    @property
    def score_prompt(self) -> int | None:
        """See Request."""
        return self.logprobs if self.echo else None
