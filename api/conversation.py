"""From a chat to what the engine is asked: the prompt, the rules its answer must keep, and how it will be read."""

from api.answer import Question
from api.context import ApiContext
from api.errors import bad_request
from api.schema.chat import ChatBody
from api.text.codec import ChatPrompt


class Conversations:
    """Knows how the served model writes calls and thinking."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    async def question(self, body: ChatBody, *, arrived_at: float) -> Question:
        """What `body` asks for.

        Raises:
            ApiError: 400; the template refuses the messages, a schema cannot be enforced, or tools are not looked for.
        """
        prompt = await self.prompt(body)
        return Question(body=body, prompts=[prompt.token_ids], arrived_at=arrived_at)

    async def prompt(self, body: ChatBody) -> ChatPrompt:
        """The conversation as the model reads it. Raises ApiError: see `question`."""
        if body.offered and body.tool_choice.mode == "auto" and self._context.settings.tool_parser is None:
            raise bad_request(
                "tools: the server does not look for calls of its own accord; start it with "
                "--enable-auto-tool-choice, or ask for a call by tool_choice.",
                param="tools",
            )
        return await self._context.codec.chat_prompt(
            [message.for_template() for message in body.messages],
            tools=[tool.model_dump(exclude_none=True) for tool in body.offered],
            template_kwargs=body.template_kwargs,
        )
