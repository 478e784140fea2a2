"""Which JSON schemas can be enforced while tokens are chosen; what cannot be is a 400 that names the keyword."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain

from api.errors import bad_request

MOST_CHARACTERS = 100_000
"""Of a schema, written as JSON."""
MOST_LEVELS = 64
"""Of objects and arrays inside each other in a schema; a level of the answer takes two or three."""
MOST_PROPERTIES = 400
"""Of one object. llguidance gives up on about 500 that may all be missing."""

Schema = dict[str, object]

_NOT_ENFORCED = frozenset(
    {"not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "propertyNames"}
    | {"dependencies", "dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"}
    | {"$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"}
)
"""JSON Schema's keywords that llguidance 1.9 does not know how to enforce (its docs/json_schema.md)."""
_OF_ONE = ("items", "additionalProperties", "additionalItems")
_OF_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_OF_NAMES = ("properties", "patternProperties", "$defs", "definitions")
"""Keywords that hold a schema, a list of them, and an object with a schema for each name."""


def enforceable(schema: Mapping[str, object], *, param: str) -> Schema:
    """A copy of `schema` that llguidance reads as its author meant it.

    What only llguidance can tell is left to `structure.check`: contradictions, patterns, formats, dangling references.

    Raises:
        ApiError: 400; it is too large or too deep, or has a keyword that cannot be enforced, or a reference elsewhere.
            `param` is where the schema stands in the body.
    """
    if _levels(schema) > MOST_LEVELS:
        raise bad_request(f"{param}: the schema is nested more than {MOST_LEVELS} levels deep.", param=param)
    text = json.dumps(schema)
    if len(text) > MOST_CHARACTERS:
        raise bad_request(f"{param}: the schema is longer than {MOST_CHARACTERS} characters.", param=param)
    root: Schema = json.loads(text)
    for path, each in _schemas(root, param):
        _check_keywords(each, path)
        options = each.get("oneOf")
        # llguidance takes `oneOf` where it sees that the options exclude each other, but not behind a reference.
        if isinstance(options, list) and "anyOf" not in each and _are_tagged([_target(root, each) for each in options]):
            each["anyOf"] = each.pop("oneOf")
    for path in _endless(root, param):
        raise bad_request(f"{path}: nothing is ever of this schema, it goes on without end.", param=path)
    return root


def _check_keywords(schema: Schema, path: str) -> None:
    for keyword in schema:
        if keyword in _NOT_ENFORCED:
            param = f"{path}.{keyword}"
            raise bad_request(f"{param}: the keyword {keyword!r} cannot be enforced.", param=param)
    reference = schema.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        raise bad_request(f"{path}.$ref: only references within the schema (#/...) are followed.", param=f"{path}.$ref")
    properties = schema.get("properties")
    if isinstance(properties, dict) and len(properties) > MOST_PROPERTIES:
        raise bad_request(f"{path}.properties: there are more than {MOST_PROPERTIES}.", param=f"{path}.properties")


def _schemas(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """A schema and all schemas in it, each with its path."""
    yield path, schema
    for keyword, value in list(schema.items()):
        inner: list[tuple[str, object]] = []
        if keyword in _OF_LISTS and isinstance(value, list):
            inner = [(str(place), item) for place, item in enumerate(value)]
        elif keyword in _OF_NAMES and isinstance(value, dict):
            inner = list(value.items())
        elif keyword in _OF_ONE and isinstance(value, dict):
            yield from _schemas(value, f"{path}.{keyword}")
        for name, item in inner:
            if isinstance(item, dict):
                yield from _schemas(item, f"{path}.{keyword}.{name}")


def _target(root: Schema, schema: object) -> object:
    """The schema that a reference stands for; any other schema is itself."""
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    if not isinstance(reference, str):
        return schema
    found: object = root
    for key in reference.removeprefix("#").split("/")[1:]:  # a JSON Pointer, RFC 6901
        found = found.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found


def _endless(root: Schema, param: str) -> Iterator[str]:
    """The paths of schemas that only endless values have, because these must hold another of their own kind."""
    schemas = list(_schemas(root, param))
    ending: set[int] = set()
    found = -1
    while found < len(ending):
        found = len(ending)
        ending |= {id(schema) for _, schema in schemas if _ends(root, schema, ending)}
    return (path for path, schema in schemas if id(schema) not in ending)


def _ends(root: Schema, schema: Schema, ending: Set[int]) -> bool:
    """Whether a schema has a value that ends, if those in `ending` have one; it may be impossible for other reasons."""

    def all_end(others: Iterable[object]) -> bool:
        return all(not isinstance(other, dict) or id(other) in ending for other in others)

    properties, required = schema.get("properties"), schema.get("required")
    names = filter(lambda name: isinstance(name, str), required) if isinstance(required, list) else ()
    needed = [properties.get(name) for name in names] if isinstance(properties, dict) else []
    needed += [schema.get("items")] if schema.get("minItems") else []
    needed += [_target(root, schema)] if "$ref" in schema else []
    options, parts = schema.get("anyOf"), schema.get("allOf")
    needed += parts if isinstance(parts, list) else []
    return all_end(needed) and (not isinstance(options, list) or any(all_end([option]) for option in options))


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


def _levels(value: object) -> int:
    """How deep objects and arrays are inside each other; counted level by level, however deep."""
    level, levels = _contents(value), 0
    while level is not None:
        inner = [contents for item in level if (contents := _contents(item)) is not None]
        level, levels = (list(chain.from_iterable(inner)) if inner else None), levels + 1
    return levels


def _contents(value: object) -> list[object] | None:
    """What an object or an array holds; None for anything else."""
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else None
