"""The rules that every body obeys, and the way a validator says that one is broken."""

from functools import cache
from typing import ClassVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Body(BaseModel):
    """What a client sends: strict types, no NaN, no unknown field; null is the same as absent."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True, validate_by_name=True)

    not_yet: ClassVar[frozenset[str]] = frozenset()
    """Fields of the API that cannot be honoured yet."""

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


def wrong(problem: str, *, at: str | None = None) -> PydanticCustomError:
    """For a validator to raise: `problem`, `at` a path below the value it was given."""
    return PydanticCustomError("wrong", "{problem}", {"problem": problem, "at": at})


def at_most(limit: int) -> BeforeValidator:
    """Refuse a list or object of more than `limit` items before its items are looked at: looking at a million
    would hold the event loop up for seconds."""

    def check(value: object) -> object:
        if isinstance(value, list | dict) and len(value) > limit:
            raise wrong(f"must hold at most {limit} items, not {len(value)}")
        return value

    return BeforeValidator(check)
