"""From a chat to what the engine is asked: the prompt, the rules its answer must keep, and how it will be read."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from api.answer import Question
from api.body import unhurried
from api.context import ApiContext
from api.errors import bad_request
from api.json_schema import enforceable
from api.parsers.parts import Tool
from api.parsers.reader import make_reader
from api.parsers.table import reasoning_family, tool_family
from api.schema.chat import ChatBody
from api.schema.tools import FunctionTool
from api.structure import ThinkingMarks, check, either, grammar, json_answer
from api.text.choice import Reading
from api.text.conversation import ChatMessage, ChatPrompt, ToolObject


class Questions:
    """Knows how the served model writes calls and thinking."""

    def __init__(self, context: ApiContext) -> None:
        settings, codec = context.settings, context.codec
        tokens = codec.added_tokens
        about = codec.chat_template, tokens
        self._context = context
        self._tools = tool_family(settings.tool_parser or "auto", *about)
        self._reasoning = reasoning_family(settings.reasoning_parser, *about) if settings.reasoning_parser else None
        markers = self._tools.markers | self._thinking_markers
        self._marker_ids = {marker: tokens[marker] for marker in markers if marker in tokens}
        """Grammars must spell by their ids what models write as one token."""
        self._silent_ids = codec.special_ids(markers)
        """Of these readers see the names, and nobody else."""

    @property
    def _thinking_markers(self) -> frozenset[str]:
        return self._reasoning.markers if self._reasoning else frozenset()

    async def question(self, body: ChatBody, *, arrived_at: float) -> Question:
        """What `body` asks for.

        Raises:
            ApiError: 400; the template refuses the messages, a schema cannot be enforced, or tools are not looked for.
        """
        if body.offered and body.tool_choice.mode == "auto" and self._context.settings.tool_parser is None:
            raise bad_request(
                "tools: the server does not look for calls of its own accord; start it with "
                "--enable-auto-tool-choice, or ask for a call by tool_choice.",
                param="tools",
            )
        prompt = await self.prompt(body)
        return Question(
            body=body,
            prompts=[prompt.token_ids],
            arrived_at=arrived_at,
            reading=self._reading(body, prompt.tail),
            grammar=await self._grammar(body, prompt.tail),
        )

    async def prompt(self, body: ChatBody) -> ChatPrompt:
        """The conversation as the model reads it. Raises ApiError: see `question`."""
        messages, tools = await unhurried(partial(_for_template, body))
        return await self._context.codec.chat_prompt(
            messages,
            tools=tools,
            template_kwargs=body.template_kwargs,
            continues=body.continues,
        )

    def _reading(self, body: ChatBody, tail: str) -> Reading:
        """Markers that are special tokens are shown to the reader only where it may look for them."""
        tools = self._tools if body.offered else None
        markers = self._thinking_markers | (tools.markers if tools else frozenset())
        shown = {name: id for name, id in self._silent_ids.items() if name in markers}
        reader = partial(
            make_reader,
            tools=tools,
            reasoning=self._reasoning,
            offered=_tools(body.offered),
            prompt_tail=tail,
            silent=frozenset(shown),
        )
        return Reading(
            reader,
            shown=frozenset(shown.values()),
            max_thinking_tokens=self._context.settings.max_thinking_tokens,
            one_call=not body.parallel_tool_calls,
        )

    async def _grammar(self, body: ChatBody, tail: str) -> str:
        """What the reply must spell; empty if it is free. A wanted call goes before a wanted form of the answer."""
        wants_call = body.tool_choice.mode == "required"
        param = "tools" if wants_call else body.form_field.partition(".")[0]
        answer = await unhurried(partial(self._calls if wants_call else self._form, body))
        if answer is None:
            return ""
        whole = grammar(answer, thinking=self._thinking(tail), marker_ids=self._marker_ids)
        await check(whole, param=param)
        return whole

    def _form(self, body: ChatBody) -> str | None:
        """The rule `answer` of a response_format; where tools may be called, a call is an answer, too."""
        wanted = body.response_format
        if wanted is None or wanted.type == "text":
            return None
        schema = wanted.json_schema.schema_ if wanted.json_schema else None
        answer = json_answer(schema, param=body.form_field)
        return either(answer, self._calls(body)) if body.offered else answer

    def _calls(self, body: ChatBody) -> str:
        """The rule `answer` of calls; where there is but one function to choose, of a single call."""
        tools = [
            replace(tool, parameters=enforceable(tool.parameters, param=f"tools.{at}.function.parameters"))
            for at, tool in enumerate(_tools(body.offered))
        ]
        one = len(body.tool_choice.only or ()) == 1
        parallel = body.parallel_tool_calls and not one
        return self._tools.grammar(tools, parallel=parallel, marker_ids=self._marker_ids)

    def _thinking(self, tail: str) -> ThinkingMarks | None:
        """How thinking may come before the answer: not where the prompt has closed it already, nor from a model that
        may never have learnt to think; the leave to do so would be a mistake waiting to be drawn."""
        if self._reasoning is None or self._reasoning.guessed:
            return None
        opening, closing = self._reasoning.marks[-1]
        if opened := self._reasoning.opened_by(tail):
            return ThinkingMarks(opening, opened, opened=True)
        return None if tail.rstrip().endswith(closing) else ThinkingMarks(opening, closing)


def _for_template(body: ChatBody) -> tuple[list[ChatMessage], list[ToolObject]]:
    """Messages and tools as chat templates read them."""
    messages = [message.for_template() for message in body.messages]
    return messages, [tool.model_dump(exclude_none=True) for tool in body.offered]


def _tools(offered: Sequence[FunctionTool]) -> list[Tool]:
    return [Tool(tool.function.name, tool.function.description, tool.function.parameters) for tool in offered]
