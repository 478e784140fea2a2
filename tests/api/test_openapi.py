"""/openapi.json: it has the routes that there are, no others, and what it says of bodies is what is checked."""

import re
from collections.abc import Iterator
from typing import cast

import pytest
from quart import Quart

from api.openapi import document
from api.routes import METRICS, ROUTES
from api.text.codec import HfCodec
from runtime.settings import Settings
from tests.api.calling import call
from tests.api.fakes import FakeDesk, make_app

pytestmark = pytest.mark.anyio

Json = dict[str, object]


def routes_of(app: Quart) -> set[tuple[str, str]]:
    """What the application answers, in OpenAPI's words."""
    return {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def documented(settings: Settings) -> set[tuple[str, str]]:
    paths = cast("dict[str, Json]", document(settings)["paths"])
    return {(path, method.upper()) for path, operations in paths.items() for method in operations}


@pytest.mark.parametrize("enable_metrics", [False, True])
async def test_the_document_has_every_route_of_the_application_and_no_other(
    desk: FakeDesk, fresh_codec: HfCodec, anyio_backend: str, enable_metrics: bool
) -> None:
    app = make_app(desk, fresh_codec, anyio_backend, enable_metrics=enable_metrics)
    assert routes_of(app) == documented(Settings(enable_metrics=enable_metrics))


async def test_it_is_served(app: Quart) -> None:
    reply = await call(app, "GET", "/openapi.json")
    assert (reply.status, reply.json) == (200, document(Settings()))
    assert reply.json["openapi"] == "3.1.0"


def references(value: object) -> Iterator[str]:
    match value:
        case {"$ref": str(reference)}:
            yield reference
        case dict():
            for each in value.values():
                yield from references(each)
        case list():
            for each in value:
                yield from references(each)


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    made = document(Settings(enable_metrics=True))
    schemas = cast("dict[str, Json]", cast("Json", made["components"])["schemas"])
    named = {reference.removeprefix("#/components/schemas/") for reference in references(made)}
    assert named <= set(schemas)
    assert set(schemas) - named <= {"ToolChoice"}


@pytest.mark.parametrize("settings", [{}, {"api_key": "s3cret"}, {"rate_limit": 5}])
def test_what_can_only_happen_with_a_setting_is_documented_with_it_alone(settings: Json) -> None:
    made = document(Settings.model_validate(settings))
    models = cast("Json", cast("dict[str, Json]", made["paths"])["/v1/models"]["get"])
    replies = set(cast("Json", models["responses"]))
    extra = {"401"} if "api_key" in settings else {"429"} if "rate_limit" in settings else set()
    assert replies == {"200"} | extra
    assert ("security" in models) == ("api_key" in settings)
    health = cast("Json", cast("dict[str, Json]", made["paths"])["/health"]["get"])
    assert "security" not in health
    assert set(cast("Json", health["responses"])) == {"200", "503"}


def test_what_our_own_validators_take_and_ask_for_is_in_the_schema() -> None:
    schemas = cast("dict[str, Json]", cast("Json", document(Settings())["components"])["schemas"])
    chat = cast("dict[str, Json]", schemas["ChatBody"]["properties"])
    assert {"type": "string", "minLength": 1, "maxLength": 1024} in cast("list[Json]", chat["stop"]["anyOf"])
    assert chat["seed"] == {"anyOf": [{"type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1}, {"type": "null"}]}
    assert chat["messages"]["maxItems"] == 10_000
    message = cast("dict[str, Json]", schemas["Message"]["properties"])
    assert [each["type"] for each in cast("list[Json]", message["content"]["anyOf"])] == ["string", "array", "null"]
    assert "reasoning" in message
    assert all(
        schema["additionalProperties"] == {"type": "null"} for name, schema in schemas.items() if name.endswith("Body")
    )


def test_a_route_is_one_entry() -> None:
    entries = [(route.method, route.path) for route in (*ROUTES, METRICS)]
    assert len(entries) == len(set(entries))
