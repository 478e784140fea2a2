"""The grammar of calls whose arguments are tags around plain text."""

import json
import re
from collections.abc import Mapping, Sequence

from api.parsers.lark import Schema, Speller, answer_rule, json_value, one_of
from api.parsers.parts import Tool
from api.parsers.tags import STRING, Tags
from api.parsers.values import types_of
from api.schema_graph import target


def tagged_grammar(tags: Tags, tools: Sequence[Tool], spell: Speller, *, parallel: bool) -> str:
    """See Format: arguments in the order of the schema's properties, all that are required.

    A string is any text without the tag that ends it, or one of the schema's `enum`; what else a schema says of
    strings cannot be seen in plain text, and is left to the model.
    """
    outside = ("", "") if tags.section_each else (tags.section, tags.section_end)
    begin, end = (outside[0] and outside[0] + tags.pad), (outside[1] and tags.pad + outside[1])
    rules = [answer_rule(begin, tags.pad, end, spell, parallel=parallel)]
    rules.append(one_of("call", [f"call_{number}" for number in range(len(tools))]))
    for number, tool in enumerate(tools):
        rules += _tool_rules(tags, number, tool, spell)
    return "".join([*rules, _text_rule(tags, spell)])


def _tool_rules(tags: Tags, number: int, tool: Tool, spell: Speller) -> list[str]:
    before, after = f"{tags.opener}{tool.name}{tags.name_end}{tags.pad}", tags.closer
    if tags.section_each:
        before, after = f"{tags.section}{tags.pad}{before}", f"{after}{tags.pad}{tags.section_end}"
    properties = tool.parameters.get("properties")
    required = tool.parameters.get("required")
    names, rules = [], []
    for place, (key, schema) in enumerate(properties.items() if isinstance(properties, Mapping) else ()):
        name = f"argument_{number}_{place}"
        needed = isinstance(required, Sequence) and key in required
        names.append(name if needed else f"{name}?")
        rules.append(f"{name}: {_argument(tags, key, schema, tool.parameters, spell)}\n")
    if not isinstance(properties, Mapping):
        names, rules = [f"argument_{number}*"], [f"argument_{number}: {_any_argument(tags, spell)}\n"]
    return [f"call_{number}: {spell(before)} {' '.join(names)} {spell(after)}\n", *rules]


def _argument(tags: Tags, key: str, schema: object, root: Schema, spell: Speller) -> str:
    types = types_of(schema, root)
    schema = target(root, schema)
    text = not types or "string" in types
    end = next((end for end, of in tags.key_ends if not of or (of == STRING) == text), "")
    before = f"{tags.key}{key}{end}{tags.value and tags.pad + tags.value}{tags.lines * chr(10)}"
    after = f"{tags.lines * chr(10)}{tags.value_end}{tags.pad}"
    choices = schema.get("enum") if isinstance(schema, Mapping) else None
    if text and isinstance(choices, list):
        words = [choice if isinstance(choice, str) else json.dumps(choice) for choice in choices]
        return f"{spell(before)} ({' | '.join(map(spell, words))}) {spell(after)}"
    if text or not isinstance(schema, Mapping):
        return f"{spell(before)} text {spell(tags.pad)}"
    definitions = {word: root[word] for word in ("$defs", "definitions") if word in root}
    return f"{spell(before)} {json_value(definitions | dict(schema))} {spell(after)}"


def _any_argument(tags: Tags, spell: Speller) -> str:
    end = next(end for end, types in tags.key_ends if types in (STRING, frozenset()))
    before = f"{end}{tags.value and tags.pad + tags.value}{tags.lines * chr(10)}"
    return f'{spell(tags.key)} /[^<>"\\n]+/ {spell(before)} text {spell(tags.pad)}'


def _text_rule(tags: Tags, spell: Speller) -> str:
    """The rule `text`: any text and the tag that ends it."""
    if spell.has_token(tags.value_end):
        return f"text: TEXT {spell(tags.value_end)}\nTEXT: /(?s:.*)/\n"
    return f"text[lazy]: /(?s:.*){re.escape(tags.value_end).replace('/', chr(92) + '/')}/\n"
