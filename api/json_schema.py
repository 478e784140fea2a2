"""Which JSON schemas can be enforced while tokens are chosen; what cannot be is a 400 that names the keyword."""

import json
from collections.abc import Mapping, Sequence

from api.errors import bad_request
from api.schema_graph import Schema, endless, levels, levels_followed, schemas, target

MOST_CHARACTERS = 100_000
"""Of a schema, written as JSON."""
MOST_LEVELS = 64
"""Of objects and arrays inside each other in a schema; a level of the answer takes two or three."""
MOST_LEVELS_FOLLOWED = 1000
"""The same where references are followed. llguidance goes down them without looking; 8 MiB of stack, which threads and
processes have, end at 1,700 or more, and the process with it (llguidance 1.9)."""
MOST_PROPERTIES = 400
"""Of one object. llguidance gives up on about 500 that may all be missing."""

_NOT_ENFORCED = frozenset(
    {"not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "propertyNames"}
    | {"dependencies", "dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"}
    | {"$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"}
)
"""JSON Schema's keywords that llguidance 1.9 does not know how to enforce (its docs/json_schema.md)."""
_NAMES = ("$id", "id", "$anchor")
"""Keywords by which references could go, and not by where a schema stands."""


def enforceable(schema: Mapping[str, object], *, param: str) -> Schema:
    """A copy of `schema` that llguidance reads as its author meant it.

    What only llguidance can tell is left to `structure.check`: contradictions, patterns, formats, dangling references.

    Raises:
        ApiError: 400; it is too large or too deep, or has a keyword that cannot be enforced, or a reference elsewhere.
            `param` is where the schema stands in the body.
    """
    if levels(schema) > MOST_LEVELS:
        raise bad_request(f"{param}: the schema is nested more than {MOST_LEVELS} levels deep.", param=param)
    text = json.dumps(schema)
    if len(text) > MOST_CHARACTERS:
        raise bad_request(f"{param}: the schema is longer than {MOST_CHARACTERS} characters.", param=param)
    root: Schema = json.loads(text)
    found = []
    for path, each in schemas(root, param):
        _check_keywords(each, path)
        _make_plain(root, each)
        found.append((path, each))
    if levels_followed(root, (each for _, each in found)) > MOST_LEVELS_FOLLOWED:
        problem = f"more than {MOST_LEVELS_FOLLOWED} levels deep, its references followed."
        raise bad_request(f"{param}: the schema is nested {problem}", param=param)
    for path in endless(root, found):
        raise bad_request(f"{path}: nothing is ever of this schema, it goes on without end.", param=path)
    return root


def _make_plain(root: Schema, schema: Schema) -> None:
    """Put what llguidance misreads in a way that it does not; schemas within are left as they are."""
    for keyword in _NAMES:
        schema.pop(keyword, None)
    options = schema.get("oneOf")
    # llguidance takes `oneOf` where it sees that the options exclude each other, but not behind a reference.
    if isinstance(options, list) and "anyOf" not in schema and _are_tagged([target(root, each) for each in options]):
        schema["anyOf"] = schema.pop("oneOf")


def _check_keywords(schema: Schema, path: str) -> None:
    for keyword in schema:
        if keyword in _NOT_ENFORCED:
            param = f"{path}.{keyword}"
            raise bad_request(f"{param}: the keyword {keyword!r} cannot be enforced.", param=param)
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference[:2] not in ("#", "#/"):
        raise bad_request(f"{path}.$ref: only references within the schema (#/...) are followed.", param=f"{path}.$ref")
    properties = schema.get("properties")
    if isinstance(properties, dict) and len(properties) > MOST_PROPERTIES:
        raise bad_request(f"{path}.properties: there are more than {MOST_PROPERTIES}.", param=f"{path}.properties")


def _are_tagged(options: Sequence[object]) -> bool:
    """Whether the options are objects that a required property tells apart: no value is one of it in two of them."""
    tags = [_constants(option) for option in options]
    return any(
        sum(len(each[name]) for each in tags) == len(frozenset().union(*(each[name] for each in tags)))
        for name in set(tags[0] if tags else ()).intersection(*tags)
    )


def _constants(schema: object) -> dict[str, frozenset[str]]:
    """The required properties of an object that have but a few values, and these as JSON."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return {}
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    found = {}
    for name in filter(properties.__contains__, map(str, required)):
        match properties[name]:
            case {"const": value}:
                found[name] = frozenset([json.dumps(value)])
            case {"enum": list(values)}:
                found[name] = frozenset(map(json.dumps, values))
    return found
