"""The families by name, and how `auto` finds the one it needs."""

from collections.abc import Container, Mapping

from api.parsers import formats as f
from api.parsers.family import ToolFamily, mint_call_id, mint_short_id
from api.parsers.format import Format
from api.parsers.reasoning import reasoning_family

__all__ = ["TOOL_FAMILIES", "reasoning_family", "tool_family"]

TOOL_FAMILIES: Mapping[str, tuple[Format, ...]] = {
    "deepseek": (f.DEEPSEEK_V3_2, f.DEEPSEEK_V4, f.DEEPSEEK_V3, f.DEEPSEEK_V3_1),
    "kimi": (f.KIMI,),
    "mistral": (f.MISTRAL_NAMED, f.MISTRAL_ARRAY, f.MISTRAL_BARE),
    "glm47": (f.GLM_4_7, f.GLM_4_5),
    "functionary": (f.FUNCTIONARY_V3_2, f.FUNCTIONARY_V2, f.FUNCTION),
    "granite": (f.GRANITE_3, f.GRANITE_4),
    "hermes": (f.HERMES,),
    "qwen": (f.QWEN_XML, f.HERMES, f.FUNCTION),
    "nemotron": (f.NEMOTRON, f.QWEN_XML),
    "xlam": (f.XLAM, f.XLAM_BLOCK, f.HERMES, f.MISTRAL_ARRAY),
    "llama": (f.LLAMA_JSON, f.LLAMA_TAG, f.LLAMA_PYTHONIC, f.LLAMA_PYTHON_TAGS, f.FUNCTION),
}
"""The formats of each family, in the order in which they are tried.

A format belongs to the first family that has it; `auto` asks in the same order.
"""

_DEFAULTS: Mapping[str, Format] = {"qwen": f.HERMES, "deepseek": f.DEEPSEEK_V3_1}
"""The format that a family writes if the template does not tell; that of the others is their first."""


def tool_family(name: str, chat_template: str, vocabulary: Container[str]) -> ToolFamily:
    """The family that goes by `name`, with the format of `chat_template` first.

    `auto` is the family of the first format that the template is written for, or whose marker is in the vocabulary;
    if there is none, it is all of them until the text of a call tells, and calls are written as by hermes.

    Raises:
        KeyError: there is no family of that name.
    """
    if name != "auto":
        return _family(name, chat_template)
    owners: dict[Format, str] = {}
    for family, formats in TOOL_FAMILIES.items():
        for one in formats:
            owners.setdefault(one, family)
    signed = [family for one, family in owners.items() if one.signed(chat_template)]
    marked = [family for one, family in owners.items() if any(opener in vocabulary for opener in one.openers)]
    if known := signed or marked:
        return _family(known[0], chat_template)
    names = ("hermes", *(name for name in TOOL_FAMILIES if name != "hermes"))
    return ToolFamily("auto", tuple(_family(name, chat_template).variants[0] for name in names))


def _family(name: str, chat_template: str) -> ToolFamily:
    formats = TOOL_FAMILIES[name]
    native = next((one for one in formats if one.signed(chat_template)), _DEFAULTS.get(name, formats[0]))
    others = [one for one in formats if one != native]
    return ToolFamily(name, ((native, *others),), mint_short_id if name == "mistral" else mint_call_id)
