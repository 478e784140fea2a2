"""The families by name, and how `auto` finds the one it needs."""

from collections.abc import Container
from dataclasses import replace

from api.parsers import formats as f
from api.parsers.family import ToolFamily, mint_short_id
from api.parsers.format import Format
from api.parsers.reasoning import reasoning_family

__all__ = ["TOOL_FAMILIES", "reasoning_family", "tool_family"]

TOOL_FAMILIES: dict[str, tuple[Format, ...]] = {
    "deepseek": (f.DEEPSEEK_V3_2, f.DEEPSEEK_V4, f.DEEPSEEK_V3, f.DEEPSEEK_V3_1),
    "kimi": (f.KIMI,),
    "mistral": (f.MISTRAL_NAMED, f.MISTRAL_ARRAY, f.MISTRAL_BARE),
    "glm47": (f.GLM_4_7, f.GLM_4_5),
    "functionary": (f.FUNCTIONARY_V3_2, f.FUNCTIONARY_V2, f.FUNCTION),
    "nemotron": (f.NEMOTRON, f.QWEN_XML),
    "granite": (f.GRANITE_3, f.GRANITE_4),
    "qwen": (f.QWEN_XML, f.HERMES, f.FUNCTION),
    "hermes": (f.HERMES,),
    "xlam": (f.XLAM, f.XLAM_BLOCK, f.HERMES, f.MISTRAL_ARRAY),
    "llama": (f.LLAMA_JSON, f.LLAMA_TAG, f.FUNCTION),
}
"""The formats of each family, in the order in which they are tried; `auto` asks the families in this order too."""

_DEFAULTS = {"qwen": f.HERMES, "deepseek": f.DEEPSEEK_V3_1}
"""The format that a family writes if the template does not tell; that of the others is their first."""


def tool_family(name: str, chat_template: str, vocabulary: Container[str]) -> ToolFamily:
    """The family that goes by `name`, with the format of `chat_template` first.

    `auto` is the first family that the template is written for, or that has a marker of its own in the vocabulary;
    otherwise all of them, until the text of a call tells.

    Raises:
        KeyError: there is no family of that name.
    """
    if name != "auto":
        return _family(name, chat_template)
    signed = [name for name, formats in TOOL_FAMILIES.items() if any(one.signed(chat_template) for one in formats)]
    marked = [name for name, formats in TOOL_FAMILIES.items() if any(opener in vocabulary for opener in _own(formats))]
    if known := signed or marked:
        return _family(known[0], chat_template)
    return ToolFamily("auto", tuple(_family(name, chat_template).variants[0] for name in _WITHOUT_TEMPLATE))


_WITHOUT_TEMPLATE = ("hermes", *(name for name in TOOL_FAMILIES if name != "hermes"))
"""The order in which formats are tried when nothing but the text can tell."""


def _family(name: str, chat_template: str) -> ToolFamily:
    formats = TOOL_FAMILIES[name]
    default = _DEFAULTS.get(name, formats[0])
    own = next((one for one in formats if one.signed(chat_template)), default)
    family = ToolFamily(name, ((own, *(one for one in formats if one != own)),))
    return replace(family, mint=mint_short_id) if name == "mistral" else family


def _own(formats: tuple[Format, ...]) -> list[str]:
    """The openers of a family that no other family has."""
    others: list[Format] = [one for family in TOOL_FAMILIES.values() if family != formats for one in family]
    shared = {opener for one in others for opener in one.openers}
    return [opener for one in formats for opener in one.openers if opener not in shared]
