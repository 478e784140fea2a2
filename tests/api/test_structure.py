"""Grammars of answers: what they let through, and what a client is told of a schema that cannot be enforced."""

import json
from collections.abc import Mapping

import pytest
from llguidance import LLMatcher, LLTokenizer

from api import json_schema
from api.errors import ApiError
from api.parsers.lark import json_value
from api.structure import ThinkingMarks, check, grammar, json_answer
from tests.tiny import END_OF_TEXT, IM_END, IM_START, make_tokenizer

pytestmark = pytest.mark.anyio

Schema = Mapping[str, object]

TOKENIZER = make_tokenizer()
LL_TOKENIZER = LLTokenizer(TOKENIZER.to_str(), eos_token=2)
AT = "response_format.json_schema.schema"


def closed(**properties: object) -> Schema:
    """An object of just these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def spells(text: str, reply: str) -> bool:
    """Whether `reply` is a word of the grammar; names of special tokens in it are those tokens."""
    matcher = LLMatcher(LL_TOKENIZER, text, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = TOKENIZER.encode(reply, add_special_tokens=False).ids
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def allows(schema: Schema | None, reply: str) -> bool:
    return spells(grammar(json_answer(schema, param=AT)), reply)


async def refusal(schema: Schema) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await check(grammar(json_answer(schema, param=AT)), param=AT)
    assert caught.value.status == 400
    assert "\n" not in caught.value.message
    assert caught.value.param is not None
    assert caught.value.message.startswith(f"{caught.value.param}: ")
    return caught.value


@pytest.mark.parametrize(
    ("reply", "allowed"),
    [
        ('{"a": 1, "b": [true, null]}', True),
        ('{"a":1,"b":[true,null]}', False),
        ('{ "a": 1, "b": [true, null]}', False),
        ('{"a": 1,\n"b": [true, null]}', False),
        ('{"b": [true, null], "a": 1}', False),
        ('{"a": 1, "b": [true, null], "c": 2}', False),
        (' {"a": 1, "b": [true, null]}', False),
        ('{"a": 1, "b": [true, null]}\n', False),
        ('{"a": 1}', False),
    ],
)
def test_json_is_written_in_one_way(reply: str, allowed: bool) -> None:
    assert allows(closed(a={"type": "integer"}, b={"type": "array"}), reply) is allowed


def test_without_a_schema_the_answer_is_any_object() -> None:
    assert allows(None, '{"a": {"b": [1, 2.5e3, "x\\n", {}]}}')
    assert allows(None, "{}")
    assert not allows(None, "[]")
    assert not allows(None, '"text"')


def test_more_properties_may_follow_unless_the_schema_says_no() -> None:
    open_object = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert allows(open_object, '{"a": 1, "more": true}')
    assert not allows({**open_object, "additionalProperties": False}, '{"a": 1, "more": true}')


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (closed(a={"enum": ["x", 2, None]}), '{"a": null}', '{"a": "y"}'),
        (closed(a={"const": {"k": [1]}}), '{"a": {"k": [1]}}', '{"a": {"k": [2]}}'),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", "1"),
        ({"type": ["boolean", "integer"]}, "true", '"true"'),
        ({"type": "integer", "minimum": 3, "exclusiveMaximum": 12}, "11", "12"),
        ({"type": "number", "multipleOf": 0.5}, "2.5", "2.3"),
        ({"type": "string", "minLength": 2, "maxLength": 3}, '"abc"', '"abcd"'),
        ({"type": "string", "pattern": "^[a-f]+$"}, '"fade"', '"face it"'),
        ({"type": "string", "format": "date"}, '"2024-02-29"', '"2024-13-01"'),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}, "[1, 2]", "[]"),
        ({"type": "array", "prefixItems": [{"type": "null"}], "items": False}, "[null]", "[null, 1]"),
        ({"$ref": "#/$defs/t", "$defs": {"t": closed(kids={"type": "array", "items": {"$ref": "#/$defs/t"}})}},
         '{"kids": [{"kids": []}]}', '{"kids": [[]]}'),
        ({"allOf": [{"type": "object", "required": ["a"]}, closed(a={"type": "null"})]}, '{"a": null}', '{"a": 0}'),
        (closed(**{"$ref": {"type": "string"}, "not": {"const": 1}}), '{"$ref": "http://x/", "not": 1}', "{}"),
    ],
)  # fmt: skip
async def test_schemas_are_enforced(schema: Schema, good: str, bad: str) -> None:
    await check(grammar(json_answer(schema, param=AT)), param=AT)
    assert allows(schema, good)
    assert not allows(schema, bad)


CAT, DOG = ({"type": "object", "properties": {"is": {"const": n}}, "required": ["is"]} for n in ("cat", "dog"))


async def test_one_of_a_tagged_union_is_enforced_behind_references_too() -> None:
    defs = {"cat": CAT, "dog~/": DOG}
    schema = {"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog~0~1"}], "$defs": defs}
    await check(grammar(json_answer(schema, param=AT)), param=AT)
    assert allows(schema, '{"is": "dog"}')
    assert not allows(schema, '{"is": "cow"}')


@pytest.mark.parametrize(
    "second",
    [CAT, {**DOG, "required": []}, {k: v for k, v in DOG.items() if k != "type"}, {"$ref": "#/$defs/none"}],
    ids=["same tag", "tag not required", "not only objects", "dangling"],
)
async def test_one_of_that_may_be_two_at_once_is_refused(second: Schema) -> None:
    schema = {"oneOf": [{"$ref": "#/$defs/first"}, {"$ref": "#/$defs/second"}]}
    problem = await refusal({**schema, "$defs": {"first": CAT, "second": second}})
    assert "oneOf" in problem.message or "$ref" in problem.message


@pytest.mark.parametrize("keyword", sorted(json_schema._NOT_ENFORCED))
async def test_a_keyword_that_cannot_be_enforced_is_named_with_its_place(keyword: str) -> None:
    problem = await refusal({"anyOf": [{"type": "null"}, closed(a={"type": "string", keyword: {}})]})
    assert problem.param == f"{AT}.anyOf.1.properties.a.{keyword}"
    assert repr(keyword) in problem.message


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum (3) is greater than maximum (2)"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength (3) is greater than maxLength (2)"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems (3) is greater than maxItems (2)"),
        ({"type": "integer", "enum": ["a"]}, "incompatible types"),
        ({"type": "string", "pattern": "^abc$", "maxLength": 2}, "Regex is empty"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "required property 'a'"),
        (closed(a=False), "required property 'a' is unsatisfiable"),
        ({"enum": []}, "Unsatisfiable"),
        ({"type": "string", "pattern": "(?=a)b"}, "pattern: regex parse error"),
        ({"type": "string", "format": "colour"}, "Unknown format: colour"),
        ({"type": "strin"}, "Invalid type: strin"),
        ({"$ref": "#/$defs/none"}, "$ref: Pointer '/$defs/none' does not exist"),
        ({"type": "object", "properties": {"a": {}}, "minProperties": 1}, "min/maxProperties"),
    ],
)
async def test_what_is_wrong_with_a_schema_is_said(schema: Schema, words: str) -> None:
    assert words in (await refusal(schema)).message


@pytest.mark.parametrize("reference", ["https://example.com/s.json", "other.json#/$defs/a", "file:///etc/passwd"])
async def test_references_elsewhere_are_refused(reference: str) -> None:
    problem = await refusal(closed(a={"items": {"$ref": reference}}))
    assert problem.param == f"{AT}.properties.a.items.$ref"


def nested(levels: int) -> Schema:
    schema: dict[str, object] = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


async def test_a_schema_has_limits() -> None:
    assert json_answer(nested(json_schema.MOST_LEVELS), param=AT)
    for levels in (json_schema.MOST_LEVELS + 1, 100_000):
        assert "levels" in (await refusal(nested(levels))).message
    wide = {f"p{n}": {"type": "null"} for n in range(json_schema.MOST_PROPERTIES + 1)}
    assert "properties" in (await refusal({"properties": wide})).message
    wide.popitem()
    await check(grammar(json_answer({"properties": wide}, param=AT)), param=AT)
    assert "characters" in (await refusal({"enum": ["x" * json_schema.MOST_CHARACTERS]})).message


def test_a_client_cannot_choose_how_the_schema_is_read() -> None:
    lax = {"x-guidance": {"whitespace_flexible": True, "lenient": True}}
    assert not allows({**closed(a={"type": "null"}), **lax}, '{"a":   null}')


@pytest.mark.parametrize("name", [END_OF_TEXT, IM_START, IM_END])
def test_names_of_special_tokens_in_a_schema_are_text(name: str) -> None:
    text = grammar(json_answer({"const": f"a{name}b"}, param=AT))
    matcher = LLMatcher(LL_TOKENIZER, text, log_level=0)
    while not matcher.is_stopped():
        allowed = matcher.compute_logit_bias()
        matcher.consume_token(next(id for id in range(3, len(allowed)) if allowed[id]))
    assert not matcher.is_error(), matcher.get_error()


OBJECT = json_answer(closed(a={"type": "integer"}), param=AT)
TEXT_MARKS = ("<think>", "</think>")
TOKEN_MARKS = (IM_START, END_OF_TEXT)


@pytest.mark.parametrize("marks", [TEXT_MARKS, TOKEN_MARKS], ids=["text", "tokens"])
@pytest.mark.parametrize(
    ("opened", "reply", "allowed"),
    [
        (True, 'so {"a": 2}?\n\nEND\n\n{"a": 1}', True),
        (True, 'END{"a": 1}', True),
        (True, 'BEGIN\nsoEND\n{"a": 1}', True),
        (True, '{"a": 1}', False),
        (True, 'soEND {"b": 1}', False),
        (True, 'soEND more END{"a": 1}', False),
        (False, 'BEGIN\nso\nEND\n\n{"a": 1}', True),
        (False, 'BEGINEND{"a": 1}', True),
        (False, '{"a": 1}', True),
        (False, 'soEND{"a": 1}', False),
        (False, 'BEGINso{"a": 1}', False),
        (False, 'BEGINsoEND', False),
    ],
)  # fmt: skip
def test_the_structure_begins_behind_the_thinking(
    marks: tuple[str, str], opened: bool, reply: str, allowed: bool
) -> None:
    ids = {IM_START: 1, END_OF_TEXT: 0} if marks is TOKEN_MARKS else {}
    text = grammar(OBJECT, thinking=ThinkingMarks(*marks, opened), marker_ids=ids)
    assert spells(text, reply.replace("BEGIN", marks[0]).replace("END", marks[1])) is allowed


async def test_a_grammar_that_is_none_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        await check("start: answer\nanswer: /[a", param="tools")
    assert caught.value.param == "tools"
    assert json.dumps(caught.value.envelope())


ITSELF: Schema = {"$ref": "#"}


@pytest.mark.parametrize(
    "schema",
    [ITSELF, closed(a=ITSELF), {"type": "array", "items": ITSELF, "minItems": 1}, {"allOf": [closed(a=ITSELF)]}],
)
async def test_a_schema_of_endless_values_is_refused(schema: Schema) -> None:
    assert "without end" in (await refusal(schema)).message


@pytest.mark.parametrize(
    "schema",
    [
        closed(a={"anyOf": [ITSELF, {"type": "null"}]}),
        {"type": "object", "properties": {"a": ITSELF}},
        closed(a={"type": "array", "items": ITSELF}),
    ],
)
async def test_a_schema_that_may_hold_itself_is_enforced(schema: Schema) -> None:
    await check(grammar(json_answer(schema, param=AT)), param=AT)


def chained(links: int) -> Schema:
    """A schema of `links` definitions, each an array of the next."""
    names = [f"#/$defs/{place}" for place in range(links)]
    defs = {str(place): {"items": {"$ref": name}} for place, name in enumerate(names[1:])}
    return {"$ref": names[0], "$defs": {**defs, str(links - 1): {"type": "null"}}}


async def test_a_schema_that_is_too_deep_by_its_references_is_refused() -> None:
    deepest = json_schema.MOST_LEVELS_FOLLOWED // 2 - 2
    await check(grammar(json_answer(chained(deepest), param=AT)), param=AT)
    # As deep as these, llguidance would end the process.
    for links in (deepest + 1, 1600):
        assert "levels deep" in (await refusal(chained(links))).message


@pytest.mark.parametrize("reference", ["#/anyOf/1", "#/%61nyOf/1", "#/components/null", "#/components/a%20b~1c"])
async def test_a_reference_is_followed_wherever_it_leads(reference: str) -> None:
    null = {"type": "null"}
    schema = {"anyOf": [closed(a={"$ref": reference}), null], "components": {"null": null, "a b/c": null}}
    assert allows(schema, '{"a": null}')
    wrong: Schema = {"not": {}}
    schema = {"anyOf": [closed(a={"$ref": reference}), wrong], "components": {"null": wrong, "a b/c": wrong}}
    assert "'not'" in (await refusal(schema)).message


@pytest.mark.parametrize("name", ["$id", "id", "$anchor"])
async def test_references_by_names_are_refused(name: str) -> None:
    problem = await refusal({"$ref": "#there", "$defs": {"a": {name: "#there", "type": "null"}}})
    assert problem.param == f"{AT}.$ref"
    assert allows({**closed(a={name: "https://example.com/", "$ref": "#/$defs/a"}), "$defs": {"a": {}}}, '{"a": 1}')


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [closed(a={"$ref": "#/anyOf/1"}), closed(b={"$ref": "#/anyOf/0"})]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": closed(a={"$ref": "#/$defs/a"})}},
        closed(a={"anyOf": [{"$ref": "#"}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]}),
    ],
)
async def test_schemas_that_need_each_other_without_end_are_refused(schema: Schema) -> None:
    assert "without end" in (await refusal(schema)).message


async def test_a_grammar_that_would_keep_the_engine_busy_is_refused() -> None:
    wide = {"properties": {f"p{n}": {"type": "integer"} for n in range(300)}}
    objects = [f"answer{n}: {json_value(wide)}\n" for n in range(100)]
    answer = f"answer: {' '.join(f'answer{n}' for n in range(100))}\n{''.join(objects)}"
    with pytest.raises(ApiError) as caught:
        await check(grammar(answer), param="tools")
    assert "too big" in caught.value.message
