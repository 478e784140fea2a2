"""From the fields of a body to the sampling settings of each of its rows."""

import secrets
from collections.abc import Sequence
from dataclasses import replace

from api.context import ApiContext
from api.errors import bad_request
from api.schema.generation import GenerationBody
from runtime.types import Sampling

SEEDS = 1 << 63
"""Seeds are taken modulo this, so that they fit any integer type on their way."""


def samplings(
    body: GenerationBody, prompts: Sequence[tuple[int, ...]], context: ApiContext, *, grammar: str = ""
) -> list[Sampling]:
    """One for each choice: `body.n` for the first prompt, then as many for the next.

    Choices of one prompt differ by their seeds: the i-th has the body's seed plus i.

    Raises:
        ApiError: 400; a token id is not in the vocabulary, or a prompt leaves no room for an answer.
    """
    check_prompts(body, prompts, context)
    seed = secrets.randbelow(SEEDS) if body.seed is None else body.seed
    base = replace(_base(body, context), grammar=grammar)
    asked = context.settings.max_tokens if body.asked_tokens is None else body.asked_tokens
    return [
        replace(base, max_tokens=min(asked, context.facts().context_tokens - len(prompt)), seed=(seed + choice) % SEEDS)
        for prompt in prompts
        for choice in range(body.n)
    ]


def _base(body: GenerationBody, context: ApiContext) -> Sampling:
    settings, vocab_size = context.settings, context.facts().vocab_size
    for token_id in body.logit_bias:
        if token_id >= vocab_size:
            raise bad_request(
                f"logit_bias.{token_id}: the model has no token {token_id}.", param=f"logit_bias.{token_id}"
            )
    greedy = settings.deterministic
    return Sampling(
        max_tokens=1,
        stop_ids=context.codec.stop_ids,
        temperature=0.0 if greedy else first_given(body.temperature, settings.default_temperature, 1.0),
        top_p=1.0 if greedy else first_given(body.top_p, settings.default_top_p, 1.0),
        top_k=body.top_k if 0 < body.top_k < vocab_size and not greedy else 0,
        min_p=0.0 if greedy else body.min_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=tuple(body.logit_bias.items()),
        top_logprobs=body.top_logprobs_asked,
    )


def first_given(*values: float | None) -> float:
    """The first of `values` that somebody chose."""
    return next(value for value in values if value is not None)


def check_prompts(body: GenerationBody, prompts: Sequence[tuple[int, ...]], context: ApiContext) -> None:
    """Raises ApiError, a 400, if a prompt cannot be served, or if there are more choices than may ever be inside."""
    most = context.settings.credits
    if len(prompts) * body.n > most:
        raise bad_request(f"n: {len(prompts) * body.n} choices are more than the {most} this server takes.", param="n")
    for prompt in prompts:
        _check_prompt(body, prompt, context)


def _check_prompt(body: GenerationBody, prompt: tuple[int, ...], context: ApiContext) -> None:
    facts, param = context.facts(), body.prompt_field
    if not prompt:
        raise bad_request("The prompt has no tokens.", param=param)
    if len(prompt) >= facts.context_tokens:
        raise bad_request(
            # In these words Anthropic's clients know that they must sum up the conversation.
            f"The prompt is too long: {len(prompt)} tokens > {facts.context_tokens - 1} maximum.",
            param=param,
            code="context_length_exceeded",
        )
    if max(prompt) >= facts.vocab_size:
        raise bad_request(f"{param}: the model has no token {max(prompt)}.", param=param)
