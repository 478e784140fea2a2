"""The facts of every format of calls that is understood, and where they are from.

"Template" is the chat template of the model that is named, as llama.cpp keeps them in models/templates; "vLLM" is the
parser in its tool_parsers.
"""

from api.parsers.envelope import Envelope
from api.parsers.named import Named
from api.parsers.pythonic import Pythonic
from api.parsers.tagged import Tagged
from api.parsers.tags import STRING
from api.parsers.values import Untyped

HERMES = Envelope(
    "<tool_call>",
    "</tool_call>",
    pad="\n",
    sign=r"<tool_call>(?:\\n|\s)*\{|(?i:json object) with function name and arguments within <tool_call>",
)
"""Templates of Hermes 2 Pro and 3, Qwen 2.5 and 3; vLLM hermes, and granite, which has an array in them."""

QWEN_XML = Tagged(
    "<function=",
    ">",
    "<parameter=",
    ((">", frozenset()),),
    "</parameter>",
    "</function>",
    section="<tool_call>",
    section_end="</tool_call>",
    lines=True,
    section_each=True,
    untyped=Untyped.NESTED,
    sign="<parameter=",
    while_thinking=("<tool_call>",),
)
"""Templates of Qwen3-Coder, Qwen3.5 and Nemotron 3 Nano; vLLM qwen3_coder.

The model leaves `<tool_call>` out at times, and may call without closing its thinking (vLLM qwen3_reasoning_parser).
"""

FUNCTION = Named(
    "<function=",
    ("</function>",),
    middle=">",
    written=("<function=NAME>", "</function>"),
    sign=r"<\{start_tag\}=",
)
"""Template of Functionary v3.1; Llama 3.1's user-defined functions (llama-models, prompt_format.md)."""

LLAMA_JSON = Envelope(
    "",
    key="parameters",
    between=";",
    sign=r'in the format \{"name"|<\|python_tag\|>|<\|start_header_id\|>ipython',
)
"""Templates of Llama 3.1 to 3.3: a reply that is nothing but JSON; vLLM llama3_json, from where the semicolons are."""

LLAMA_TAG = Envelope("<|python_tag|>", key="parameters", between=";")
"""The same behind the marker (llama-models, prompt_format.md)."""

LLAMA_PYTHONIC = Pythonic(sign=r"func_name1\(params_name1=")
"""Llama 3.2 and 4 as their model cards prompt them for "pythonic" calls: a reply that is nothing but a list."""

LLAMA_PYTHON_TAGS = Pythonic("<|python_start|>", "<|python_end|>")
"""The same between markers; vLLM llama4_pythonic."""

GRANITE_3 = Envelope("<|tool_call|>", array=True, sign=r"<\|tool_call\|>")
"""Template of Granite 3.3; vLLM granite."""

GRANITE_4 = Envelope(
    "<tool_call>",
    "</tool_call>",
    pad="\n",
    sign=r"(?s)start_of_role.*<tool_call>|<tool_call>.*start_of_role",
)
"""Template of Granite 4."""

NEMOTRON = Envelope("<TOOLCALL>", "</TOOLCALL>", array=True, sign="<TOOLCALL>")
"""Template of Nemotron Nano 9B v2."""

XLAM = Envelope("", array=True, sign="make calls in a single JSON array")
"""Template of Llama-xLAM-2: a reply that is nothing but an array."""

XLAM_BLOCK = Envelope("```", "```", lead="json", array=True)
"""The same in a block of code; vLLM xlam, which takes it in the markers of Hermes and Mistral as well."""

MISTRAL_NAMED = Named(
    "[TOOL_CALLS]", id_mark="[CALL_ID]", middle="[ARGS]", written=("[TOOL_CALLS]NAME[ARGS]", ""), sign=r"\[ARGS\]"
)
"""Templates of Mistral Small 3.2 (with ids), Devstral and Ministral 3 (without)."""

MISTRAL_ARRAY = Envelope("[TOOL_CALLS]", array=True, sign=r"\[TOOL_CALLS\]")
"""Template of Mistral Nemo. The id that may stand behind the arguments is too late for a stream: a call has its own."""

MISTRAL_BARE = Named("[TOOL_CALLS]", written=("[TOOL_CALLS]NAME", ""))
"""A name and its arguments with no marker between them, as vLLM mistral has it of tokenisers from version 11 on."""

DEEPSEEK_V3 = Named(
    "<｜tool▁call▁begin｜>",
    ("```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    sections=("<｜tool▁calls▁begin｜>",),
    lead="function<｜tool▁sep｜>",
    middle="```json",
    written=("<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n", "\n```<｜tool▁call▁end｜>"),
    sign=r"(?s)<｜tool▁sep｜>.*```json",
)
"""Templates of DeepSeek R1 and its distillates; vLLM deepseek_v3."""

DEEPSEEK_V3_1 = Named(
    "<｜tool▁call▁begin｜>",
    ("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    sections=("<｜tool▁calls▁begin｜>",),
    middle="<｜tool▁sep｜>",
    written=("<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
    sign="<｜tool▁sep｜>",
)
"""Template of DeepSeek V3.1; vLLM deepseek_v31."""


def _dsml(section: str) -> Tagged:
    return Tagged(
        '<｜DSML｜invoke name="',
        '">',
        '<｜DSML｜parameter name="',
        (('" string="true">', STRING), ('" string="false">', frozenset())),
        "</｜DSML｜parameter>",
        "</｜DSML｜invoke>",
        section=f"<｜DSML｜{section}>",
        section_end=f"</｜DSML｜{section}>",
        tokens=("｜DSML｜",),
        sign=rf"(?:｜DSML｜|dsml_token \+ '){section}>",
    )


DEEPSEEK_V3_2 = _dsml("function_calls")
"""Template of DeepSeek V3.2; vLLM deepseek_v32."""

DEEPSEEK_V4 = _dsml("tool_calls")
"""Template of DeepSeek V4."""


def _kimi_label(label: str) -> tuple[str, str]:
    name, _, index = label.removeprefix("functions.").rpartition(":")
    return (name, label) if index.isdigit() else ("", "")


KIMI = Named(
    "<|tool_call_begin|>",
    ("<|tool_call_end|>", "<|tool_calls_section_end|>"),
    sections=("<|tool_calls_section_begin|>",),
    middle="<|tool_call_argument_begin|>",
    label=_kimi_label,
    written=("<|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>", "<|tool_call_end|>"),
    sign=r"<\|tool_call_argument_begin\|>",
    while_thinking=("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
)
"""Template of Kimi K2; vLLM kimi_k2. The label, `functions.NAME:INDEX`, is the id.

The model may call without closing its thinking (vLLM kimi_k2_reasoning_parser).
"""

FUNCTIONARY_V3_2 = Named(">>>", to_all="all\n", written=(">>>NAME\n", ""), sign=r">>>\$\{recipient\}")
"""Template of Functionary v3.2, which ends the prompt with the first `>>>`."""

FUNCTIONARY_V2 = Named(
    "<|recipient|>",
    sections=("\n<|from|>assistant", "<|from|>assistant"),
    middle="<|content|>",
    to_all="all\n<|content|>",
    written=("<|recipient|>NAME\n<|content|>", ""),
    sign=r"<\|recipient\|>",
)
"""MeetKai/functionary, prompt_template/prompt_template_v2.py; the prompt ends with the first `<|recipient|>`."""

GLM_4_7 = Tagged(
    "<tool_call>",
    "",
    "<arg_key>",
    (("</arg_key>", frozenset()),),
    "</arg_value>",
    "</tool_call>",
    value="<arg_value>",
    pad="",
    sign=r"\{function-name\}<arg_key>",
)
"""Template of GLM 4.7 Flash; vLLM glm47."""

GLM_4_5 = Tagged(
    "<tool_call>",
    "",
    "<arg_key>",
    (("</arg_key>", frozenset()),),
    "</arg_value>",
    "</tool_call>",
    value="<arg_value>",
    sign="<arg_key>",
)
"""Template of GLM 4.6, which has line breaks between the tags; vLLM glm45."""
