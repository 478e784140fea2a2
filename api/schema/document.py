"""JSON Schema of bodies as they are really checked: pydantic cannot see what our own validators do."""

from typing import cast, get_type_hints, is_typeddict

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, NoDefault
from pydantic_core import core_schema
from typing_extensions import TypedDict

from api.schema.base import Body
from api.schema.rules import NULL

SMALLEST_INT, LARGEST_INT = -(2**63), 2**64 - 1
"""Integers beyond are read as floats (orjson), and refused where an integer is wanted."""


def readable(kind: type) -> type:
    """A TypedDict of the standard library as pydantic can read it (before Python 3.12 it cannot read those)."""
    if not is_typeddict(kind):
        return kind
    members = {name: readable(hint) for name, hint in get_type_hints(kind).items()}
    made: type = TypedDict(kind.__name__, members)  # type: ignore[misc] # mypy knows none that is made like this
    return made


class BodySchema(GenerateJsonSchema):
    """JSON Schema (2020-12) in which null is the same as absent, and a member nobody knows may be nothing else."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """See GenerateJsonSchema; what a Body's `rules` say comes on top."""
        found = super().model_schema(schema)
        cls = schema["cls"]
        if not issubclass(cls, Body):
            return found
        required = found.get("required", [])
        members = cast("dict[str, JsonSchemaValue]", found.get("properties", {}))
        for name, member in members.items():
            if name not in required:
                members[name] = _or_null(member)
        for name, other in cls.other_names():
            members[other] = {**members[name], "description": f"Another name of `{name}`."}
        found["additionalProperties"] = NULL
        if len(cls.rules) == 1:
            found.update(cls.rules[0])
        elif cls.rules:
            found["allOf"] = list(cls.rules)
        return found

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        """See GenerateJsonSchema."""
        bounds = {"minimum": SMALLEST_INT, "maximum": LARGEST_INT} if self.mode == "validation" else {}
        return {**bounds, **super().int_schema(schema)}

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> object:
        """See GenerateJsonSchema: none but what a client could send, too."""
        default = super().get_default_value(schema)
        return default if isinstance(default, str | int | float) else NoDefault

    def field_title_should_be_set(self, schema: object) -> bool:
        """See GenerateJsonSchema: a field's title would only repeat its name."""
        return False


def _or_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    if NULL in schema.get("anyOf", []):
        return schema
    notes = {"description", "default"} & schema.keys()
    kept = {name: value for name, value in schema.items() if name not in notes}
    alternatives = kept["anyOf"] if list(kept) == ["anyOf"] else [kept]
    return {"anyOf": [*alternatives, NULL]} | {name: schema[name] for name in notes}
