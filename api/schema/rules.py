"""What validators of whole bodies ask for, in words of JSON Schema, so that the API's document can say it."""

from pydantic.json_schema import JsonSchemaValue

Rules = tuple[JsonSchemaValue, ...]
"""All of them hold."""

NULL: JsonSchemaValue = {"type": "null"}


def an_object(**members: JsonSchemaValue) -> JsonSchemaValue:
    """An object that has all of `members`, and may have others."""
    return {"type": "object", "properties": members, "required": list(members)}


def has(name: str, schema: JsonSchemaValue | None = None) -> JsonSchemaValue:
    """The member is there, and not null."""
    return {"properties": {name: schema or {"not": NULL}}, "required": [name]}


def says(name: str, *values: object) -> JsonSchemaValue:
    """The member is there, and one of `values`."""
    return has(name, {"enum": list(values)})


def lacks(*names: str) -> JsonSchemaValue:
    """None of the members is there."""
    return {"properties": dict.fromkeys(names, NULL)}


def either(*rules: JsonSchemaValue) -> JsonSchemaValue:
    """One of the rules holds."""
    return {"anyOf": list(rules)}


def all_of(*rules: JsonSchemaValue) -> JsonSchemaValue:
    """All rules hold, each about members of its own."""
    return {
        "properties": {name: schema for rule in rules for name, schema in rule.get("properties", {}).items()},
        "required": [name for rule in rules for name in rule.get("required", [])],
    }
