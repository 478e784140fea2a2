"""A JSON schema as a graph: the schemas in it, where references lead, how deep it is, and what in it has no end."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from urllib.parse import unquote

Schema = dict[str, object]

_OF_ONE = ("items", "additionalProperties", "additionalItems")
_OF_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_OF_NAMES = ("properties", "patternProperties", "$defs", "definitions")
"""Keywords that hold a schema, a list of them, and an object with a schema for each name."""


def schemas(root: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """A schema, all schemas in it, and those that references lead to, each once and with a path to it.

    A schema may be changed before the next one is asked for.
    """
    seen: set[int] = set()
    todo = [(path, root)]
    while todo:
        path, schema = todo.pop()
        if id(schema) not in seen:
            seen.add(id(schema))
            yield path, schema
            todo += reversed([(where, each) for where, each in _inner(root, schema, path) if isinstance(each, dict)])


def _inner(root: Schema, schema: Schema, path: str) -> Iterator[tuple[str, object]]:
    for keyword, value in schema.items():
        if keyword in _OF_LISTS and isinstance(value, list):
            yield from ((f"{path}.{keyword}.{place}", item) for place, item in enumerate(value))
        elif keyword in _OF_NAMES and isinstance(value, dict):
            yield from ((f"{path}.{keyword}.{name}", item) for name, item in value.items())
        elif keyword in _OF_ONE:
            yield f"{path}.{keyword}", value
        elif keyword == "$ref":
            yield f"{path}.{keyword}", target(root, schema)


def target(root: object, schema: object) -> object:
    """What a reference leads to, None if nowhere; any other schema is itself."""
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    if not isinstance(reference, str):
        return schema
    found: object = root
    # A JSON Pointer in a URI's fragment (RFC 6901, sections 3 to 6).
    for key in unquote(reference.removeprefix("#")).split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(key)
        else:
            found = found[int(key)] if isinstance(found, list) and key.isdecimal() and int(key) < len(found) else None
    return found


def levels(value: object) -> int:
    """How deep objects and arrays are inside each other; counted level by level, however deep."""
    level, count = _contents(value), 0
    while level is not None:
        inner = [contents for item in level if (contents := _contents(item)) is not None]
        level, count = (list(chain.from_iterable(inner)) if inner else None), count + 1
    return count


def _contents(value: object) -> list[object] | None:
    """What an object or an array holds; None for anything else."""
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else None


def levels_followed(root: Schema, found: Iterable[Schema]) -> int:
    """The most levels that a path through `root` can have which follows the references in the schemas `found`."""
    targets = [target(root, schema) for schema in found if "$ref" in schema]
    return levels(root) + sum(levels(each) for each in {id(each): each for each in targets}.values())


def endless(root: Schema, found: Sequence[tuple[str, Schema]]) -> list[str]:
    """The paths of those of the schemas `found` that only endless values have, as these must hold another of their own
    kind. Whether a schema is impossible for other reasons is not asked."""
    paths = {id(schema): path for path, schema in found}
    needs = [(id(schema), group) for _, schema in found for group in _needs(root, schema)]
    # What is not among the schemas is no schema that could go on.
    needs = [(key, group) for key, group in needs if group and all(id(each) in paths for each in group)]
    missing = Counter(key for key, _ in needs)
    members: defaultdict[int, list[int]] = defaultdict(list)
    for place, (_, group) in enumerate(needs):
        for each in group:
            members[id(each)].append(place)
    met: set[int] = set()
    ending = deque(key for key in paths if not missing[key])
    while ending:
        key = ending.popleft()
        del paths[key]
        news = set(members[key]) - met
        met |= news
        for owner in (needs[place][0] for place in news):
            missing[owner] -= 1
            if not missing[owner]:
                ending.append(owner)
    return list(paths.values())


def _needs(root: Schema, schema: Schema) -> Iterator[list[object]]:
    """Groups of schemas; a schema has a value that ends if, of each group, one has."""
    properties, required, parts = schema.get("properties"), schema.get("required"), schema.get("allOf")
    if isinstance(properties, dict) and isinstance(required, list):
        yield from ([properties.get(name)] for name in required if isinstance(name, str))
    if schema.get("minItems"):
        yield [schema.get("items")]
    if "$ref" in schema:
        yield [target(root, schema)]
    if isinstance(options := schema.get("anyOf"), list):
        yield options
    yield from ([part] for part in (parts if isinstance(parts, list) else []))
