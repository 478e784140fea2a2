"""POST /v1/responses, and what is kept of responses so that others can go on from them."""

from functools import partial

import orjson
from pydantic import TypeAdapter
from quart import Blueprint, Response, current_app

from api.answer import Json, answer
from api.body import read_body, translated, unhurried
from api.call import current_call
from api.context import ApiContext
from api.errors import ApiError
from api.questions import Questions
from api.response_store import ResponseStore, StoredResponse
from api.responses_writer import ResponsesWriter
from api.sampling import first_given
from api.schema.chat import Message
from api.schema.response_items import Item, messages_of
from api.schema.responses import ResponsesBody

_ITEMS: TypeAdapter[list[Item]] = TypeAdapter(list[Item])


def response_routes(context: ApiContext, questions: Questions) -> Blueprint:
    """The Responses API."""
    routes = Blueprint("responses", __name__)
    store = ResponseStore()

    @routes.post("/v1/responses")
    async def create() -> Response:
        arrived_at = context.desk.now()
        body = await read_body(ResponsesBody)
        context.check_model(body.model)
        earlier = _earlier(store, body.previous_response_id)
        chat = await unhurried(partial(translated, partial(body.as_chat, earlier)))
        said = tuple(chat.messages[len(body.introduction) :])
        question = await questions.question(chat, arrived_at=arrived_at)
        settings = context.settings
        writer = ResponsesWriter(
            id=f"resp_{current_call.get().id}",
            model=context.model_id,
            body=body,
            codec=context.codec,
            temperature=first_given(body.temperature, settings.default_temperature, 1.0),
            top_p=first_given(body.top_p, settings.default_top_p, 1.0),
            keep=partial(_keep, store, said) if body.store else _forget,
        )
        return await answer(context, question, writer)

    @routes.get("/v1/responses/<response_id>")
    async def get(response_id: str) -> Response:
        if found := store.get(response_id):
            return current_app.response_class(found.body, mimetype="application/json")
        raise _no_such_response(response_id)

    @routes.delete("/v1/responses/<response_id>")
    async def delete(response_id: str) -> Json:
        if not store.drop(response_id):
            raise _no_such_response(response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    return routes


def _earlier(store: ResponseStore, response_id: str | None) -> tuple[Message, ...]:
    """What was said up to the end of a response."""
    if response_id is None:
        return ()
    if found := store.get(response_id):
        return tuple(found.messages)
    raise _no_such_response(response_id, status=400)


def _keep(store: ResponseStore, said: tuple[Message, ...], response: Json) -> None:
    """The output items are read again the way a client would send them."""
    answered = messages_of(_ITEMS.validate_python(response["output"]))
    store.put(str(response["id"]), StoredResponse(orjson.dumps(response), (*said, *answered)))


def _forget(response: Json) -> None:
    pass


def _no_such_response(response_id: str, status: int = 404) -> ApiError:
    return ApiError(
        status,
        f"There is no response {response_id[:100]!r}: it was never stored, or was forgotten since.",
        param="previous_response_id",
        code="previous_response_not_found",
    )
