"""POST /v1/messages and POST /v1/messages/count_tokens: chats in the words of Anthropic's API.

Its version and beta headers are not asked for and not looked at.
"""

from functools import partial

from quart import Blueprint, Response, request

from api.answer import answer
from api.body import read_body, translated, unhurried
from api.call import current_call
from api.context import ApiContext
from api.errors import speaks_anthropic
from api.messages_writer import MessagesWriter
from api.questions import Questions
from api.sampling import first_given
from api.schema.chat import ChatBody
from api.schema.messages import CountBody, MessagesBody
from runtime.settings import Settings

DEFAULT_TEMPERATURE, DEFAULT_TOP_P = 0.7, 0.9
"""Where neither the client nor the operator says."""


def messages_routes(context: ApiContext, questions: Questions) -> Blueprint:
    """The next message of a conversation, and how many tokens it would be the answer to."""
    routes = Blueprint("messages", __name__)

    @routes.post("/v1/messages")
    async def create() -> Response:
        arrived_at = context.desk.now()
        body = await read_body(MessagesBody)
        context.check_model(body.model)
        chat = await unhurried(partial(_chat, body, context.settings))
        question = await questions.question(chat, arrived_at=arrived_at)
        (prompt,) = question.prompts
        writer = MessagesWriter(
            id=f"msg_{current_call.get().id}",
            model=context.model_id,
            prompt_tokens=len(prompt),
            shows_thinking=body.shows_thinking,
        )
        return await answer(context, question, writer)

    @routes.post("/v1/messages/count_tokens")
    async def count_tokens() -> dict[str, int]:
        body = await read_body(CountBody)
        context.check_model(body.model)
        prompt = await questions.prompt(await unhurried(partial(_chat, body, context.settings)))
        return {"input_tokens": len(prompt.token_ids)}

    routes.after_app_request(_name_the_request)
    return routes


def _chat(body: CountBody, settings: Settings) -> ChatBody:
    temperature = first_given(settings.default_temperature, DEFAULT_TEMPERATURE)
    top_p = first_given(settings.default_top_p, DEFAULT_TOP_P)
    return translated(partial(body.as_chat, temperature=temperature, top_p=top_p))


def _name_the_request(response: Response) -> Response:
    """Anthropic's clients look for the call's id under this name, in errors too."""
    if speaks_anthropic(request.path):
        response.headers["request-id"] = current_call.get().id
    return response
