"""What a body that fits its schema may be refused for, all else being a lie in /openapi.json; and short answers."""

import re
from typing import Any

import schemathesis

REASONS = {
    r"^(The prompt|prompt|This model's maximum context)": "how many tokens a text has, only its tokeniser knows",
    r"the model has no token \d+": "token ids end where the model's vocabulary does",
    r"Input should be a valid integer|must hold nothing but token ids": "to JSON Schema 2.0 is an integer, like 2",
    r"must be a string or a list of token ids": "the same, where it comes first",
    r"names the function|hold two functions named": "tools are referred to by their names",
    r"tool_choice: needs tools": "a namespace of tools may be empty",
    r"tool_use": "results of calls are referred to by their ids",
    r"^best_of: ": "it may equal n",
    r"^max_completion_tokens: differs": "it may equal max_tokens",
    r"^n: \d+ choices are more than": "it is multiplied by the number of prompts",
    r"There is no response": "an id may be any string, and few have been given out",
    r"must have (non-empty )?content": "all messages but the last: a schema knows no last one",
    r"last message|final assistant": "the same",
    r"Tool names must be unique|not found in provided tools": "tools are referred to by their names",
    r"chat template": "what a model's template makes of messages is its own business",
    r"schema": "of a schema that came in a body, its keywords",
}

MOST_TOKENS = 64
"""What a reply is cut to: a small model writes all the tokens that it may."""
LARGEST_INT = 2**64 - 1


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: schemathesis.Case[Any], **_: Any) -> None:
    """Bound what a good number of tokens is; bad ones stay as they are, to be refused."""
    if isinstance(case.body, dict):
        case.body = {name: bounded(name, value) for name, value in case.body.items()}


def bounded(name: str, value: Any) -> Any:
    many = isinstance(value, int) and MOST_TOKENS < value <= LARGEST_INT
    return MOST_TOKENS if many and name in ("max_tokens", "max_completion_tokens", "max_output_tokens") else value


@schemathesis.check
def refused_for_a_reason_that_no_schema_can_say(
    _context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """A 400 to a body that fits has one of the REASONS."""
    if response.status_code != 400 or not case.meta or not case.meta.generation.mode.is_positive:
        return
    message = str(response.json()["error"]["message"])
    if not any(re.search(reason, message) for reason in REASONS):
        raise AssertionError(f"fits the schema, and yet: {message}")
