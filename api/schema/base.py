"""The rules that every body obeys, and the way a validator says that one is broken."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, Literal

import orjson
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from api.schema.rules import Rules


class Body(BaseModel):
    """What a client sends: strict types, no NaN, no unknown field; null is the same as absent."""

    model_config = ConfigDict(
        strict=True, allow_inf_nan=False, frozen=True, validate_by_name=True, use_attribute_docstrings=True
    )

    not_yet: ClassVar[frozenset[str]] = frozenset()
    """Fields of the API that cannot be honoured yet."""
    rules: ClassVar[Rules] = ()
    """What its own validators ask for beyond its fields: see api/schema/rules.py."""

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        present = {name: value for name, value in data.items() if value is not None}
        known = cls._names()
        for name in present:
            if name in cls.not_yet:
                raise wrong("is not supported yet", at=name)
            if name not in known:
                raise wrong("is not a known field", at=name)
        return present

    @classmethod
    @cache
    def _names(cls) -> set[str]:
        """What its fields may be called."""
        names = set()
        for name, field in cls.model_fields.items():
            alias = field.validation_alias or name
            names |= {str(each) for each in alias.choices} if isinstance(alias, AliasChoices) else {str(alias)}
        return names

    @classmethod
    def other_names(cls) -> Iterator[tuple[str, str]]:
        """Pairs of a field's first name and another that it may be called."""
        for field in cls.model_fields.values():
            if isinstance(field.validation_alias, AliasChoices):
                first, *others = map(str, field.validation_alias.choices)
                yield from ((first, other) for other in others)


def wrong(problem: str, *, at: str | None = None) -> PydanticCustomError:
    """For a validator to raise: `problem`, `at` a path below the value it was given."""
    return PydanticCustomError("wrong", "{problem}", {"problem": problem, "at": at})


@dataclass(frozen=True, slots=True)
class AtMost:
    """Refuse a list or object of more than `limit` items before its items are looked at: looking at a million
    would hold the event loop up for seconds."""

    limit: int

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        keyword = {"array": "maxItems", "object": "maxProperties"}.get(found.get("type", ""))
        return {**found, keyword: self.limit} if keyword else found

    def _check(self, value: object) -> object:
        if isinstance(value, list | dict) and len(value) > self.limit:
            raise wrong(f"must hold at most {self.limit} items, not {len(value)}")
        return value


def _is_bool(value: object) -> object:
    if not isinstance(value, bool):
        raise wrong("must be false")
    return value


Off = Annotated[Literal[False], BeforeValidator(_is_bool)]
"""Something that is not done here; to a Literal alone 0 is False."""


def too_deep(value: object) -> bool:
    """Whether JSON is nested so deeply that code which follows it by recursion might not come back.

    orjson reads 1024 levels (its README) and writes 254, and does so for a million values in milliseconds.
    """
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return True
    return False


def at_most(limit: int) -> AtMost:
    """An annotation for lists and objects."""
    return AtMost(limit)


@dataclass(frozen=True, slots=True, eq=False)  # An annotation is hashed; a schema cannot be.
class OrAlso:
    """Documents what a validator beside this annotation takes, too, and turns into what is annotated."""

    schema: JsonSchemaValue

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), self.schema]}
