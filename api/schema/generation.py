"""The fields that chat and text completions share: how to choose tokens, when to stop, how to send."""

import re
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from api.schema.base import Body, Off, OrAlso, at_most, wrong
from api.schema.rules import Rules, either, lacks, says

StopString = Annotated[str, MinLen(1), MaxLen(1024)]
Bias = Annotated[float, Ge(-100), Le(100)]
Penalty = Annotated[float, Ge(-2), Le(2)]
CacheSalt = Annotated[str, MinLen(1), MaxLen(256)]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _by_id(biases: object) -> object:
    """JSON has no numbers for keys: token ids come as decimal strings."""
    if not isinstance(biases, dict):
        return biases
    for key in biases:
        if not re.fullmatch("[0-9]{1,9}", key):
            raise wrong("is not a token id", at=key)
    return {int(key): bias for key, bias in biases.items()}


ONE_STOP = OrAlso({"type": "string", "minLength": 1, "maxLength": 1024})
BIASES = WithJsonSchema(
    {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]{1,9}$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        "maxProperties": 1024,
    }
)


class StreamOptions(Body):
    """How to stream."""

    include_usage: bool = False
    """Send a last chunk that holds the usage."""
    include_obfuscation: Off = False
    """Padding against traffic analysis, which is not done here."""


class GenerationBody(Body):
    """What any request for tokens may say. Defaults that the operator can set are None here."""

    prompt_field: ClassVar[str]
    """The field that holds the prompt."""
    rules: ClassVar[Rules] = (either(lacks("stream_options"), says("stream", True)),)

    model: str = "default"
    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_p: Annotated[float, Ge(0), Le(1)] | None = None
    top_k: Annotated[int, Ge(-1)] = 0
    """0 and -1 are off."""
    min_p: Annotated[float, Ge(0), Le(1)] = 0.0
    max_tokens: Annotated[int, Ge(1)] | None = None
    stop: Annotated[list[StopString], at_most(16), BeforeValidator(_as_list), ONE_STOP] = Field(default_factory=list)
    seed: int | None = None
    n: Annotated[int, Ge(1), Le(16)] = 1
    logit_bias: Annotated[dict[int, Bias], BeforeValidator(_by_id), at_most(1024), BIASES] = Field(default_factory=dict)
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: Annotated[float, Ge(0.01), Le(10)] = 1.0
    stream: bool = False
    stream_options: StreamOptions | None = None
    include_diagnostics: bool = False
    """Tell in the reply what the request asked of the server."""
    diagnostics_level: Literal["basic", "deep"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    user: str | None = None
    metadata: object = None
    store: bool | None = None
    cache_salt: CacheSalt | None = None
    """A kept prefix serves requests of the same salt only; those without one share theirs."""
    repetition_policy_override: Literal["safe", "strict"] | None = None
    """When to end an answer that goes round in circles, from those whom the server trusts to say."""

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> "GenerationBody":
        if self.stream_options and not self.stream:
            raise wrong("is only allowed with stream", at="stream_options")
        return self

    @property
    def asked_tokens(self) -> int | None:
        """How many tokens the client wants at most; None if it does not say."""
        return self.max_tokens

    @property
    def top_logprobs_asked(self) -> int | None:
        """How many of the likeliest tokens to tell beside each chosen one; None for no log-probabilities at all."""
        return None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that holds the usage."""
        return self.stream_options is not None and self.stream_options.include_usage
