"""Arguments that are written as plain text: what JSON value they are, by the tool's schema."""

import json
from collections.abc import Mapping
from enum import Enum

from api.schema_graph import target

_TYPES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    list: "array",
    dict: "object",
}
_PYTHON = {"true": "true", "false": "false", "none": "null", "null": "null"}
"""Templates that print values as Python does write True, False and None."""


class Untyped(Enum):
    """What types an argument may be of whose schema does not say it; if it is of none of them, it is a string."""

    JSON = frozenset(_TYPES.values())
    NESTED = frozenset(("object", "array"))


def types_of(schema: object, root: object) -> frozenset[str]:
    """The JSON types that a schema, one within `root`, allows at its top; none if it does not say."""
    schema = target(root, schema)
    if not isinstance(schema, Mapping):
        return frozenset()
    match schema.get("type"):
        case str() as name:
            return frozenset((name,))
        case list() as names:
            return frozenset(map(str, names))
    if "const" in schema:
        return frozenset((_type_of(schema["const"]),))
    if isinstance(values := schema.get("enum"), list):
        return frozenset(map(_type_of, values))
    for word in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(word), list):
            # No reference behind a reference: they may go round in circles.
            types = [types_of(target(root, option), None) for option in options]
            return frozenset().union(*types) if all(types) else frozenset()
    return frozenset()


def to_json(text: str, types: frozenset[str], untyped: Untyped) -> str:
    """The JSON text of an argument; a string if it is of none of `types`, for what the model wrote is not changed."""
    allowed = types - {"string"} if types else untyped.value
    word = text.strip()
    word = _PYTHON.get(word.lower(), word)
    return word if _types_of_text(word) & allowed else json.dumps(text, ensure_ascii=False)


def _types_of_text(text: str) -> frozenset[str]:
    """The types that JSON text has: a whole number is an integer and a number."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return frozenset()
    name = _type_of(value)
    if name == "integer" or (isinstance(value, float) and value.is_integer()):
        return frozenset(("integer", "number"))
    return frozenset((name,))


def _type_of(value: object) -> str:
    return _TYPES[type(value)]


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
