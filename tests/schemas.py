"""Ten JSON schemas, of the kinds that programs ask for, whose values end soon enough."""

from collections.abc import Mapping

from jsonschema import Draft202012Validator

NAME = {"type": "string", "pattern": "^[A-Z][a-z]{1,9}$"}
YEAR = {"type": "integer", "minimum": 1900, "maximum": 2030}


def closed(**properties: object) -> dict[str, object]:
    """An object of just these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SCHEMAS: Mapping[str, Mapping[str, object]] = {
    "flat": closed(name=NAME, year=YEAR, alive={"type": "boolean"}),
    "nested": closed(person=closed(name=NAME, home=closed(city=NAME, zip={"type": "string", "pattern": "^[0-9]{5}$"}))),
    "enum": closed(kind={"const": "note"}, colour={"enum": ["red", "green", "blue"]}, size={"enum": [1, 2, None]}),
    "array": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 3, "maxItems": 6},
    "objects": {"type": "array", "items": closed(name=NAME, born=YEAR), "minItems": 2, "maxItems": 3},
    "refs": {
        "$defs": {"point": closed(x={"$ref": "#/$defs/axis"}, y={"$ref": "#/$defs/axis"}), "axis": YEAR},
        **closed(start={"$ref": "#/$defs/point"}, end={"$ref": "#/$defs/point"}),
    },
    "anyOf": closed(value={"anyOf": [closed(number=YEAR), closed(word=NAME), {"type": "null"}]}),
    "bounds": closed(
        word={"type": "string", "minLength": 4, "maxLength": 8},
        share={"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 1},
    ),
    "formats": closed(day={"type": "string", "format": "date"}, id={"type": "string", "format": "uuid"}),
    "recursive": {
        "$defs": {
            "digit": {"type": "integer", "minimum": 0, "maximum": 9},
            "term": {"anyOf": [{"$ref": "#/$defs/digit"}, {"$ref": "#/$defs/sum"}]},
            "sum": closed(op={"enum": ["+", "-"]}, left={"$ref": "#/$defs/digit"}, right={"$ref": "#/$defs/term"}),
        },
        "$ref": "#/$defs/sum",
    },
}


def validate(value: object, schema: Mapping[str, object]) -> None:
    """Raises jsonschema.ValidationError if `value` is not of `schema`, formats included."""
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)
