"""The HTTP application: every route, behind one key, with one way to say what went wrong."""

from collections.abc import Callable, Sequence

from quart import Quart

from api.auth import keep_door
from api.cache import cache_routes
from api.call import Call, CallKeeper, note_route
from api.chat import chat_routes
from api.completions import completion_routes
from api.context import ApiContext
from api.cors import allow_origins
from api.errors import respond
from api.health.routes import health_routes
from api.messages import messages_routes
from api.metrics import show_metrics
from api.models import model_routes
from api.openapi import openapi_routes
from api.operations import operation_routes
from api.page.serve import page_routes
from api.questions import Questions
from api.responses import response_routes
from api.spans import Spans

BODY_TIMEOUT_S = 60
"""How long a request's body may take to arrive."""

RESPONSE_TIMEOUT_S = 60
"""How long a whole reply may take to send; streams have no such limit."""


def create_app(
    context: ApiContext, *, app_class: type[Quart] = Quart, observers: Sequence[Callable[[Call], None]] = ()
) -> Quart:
    """The application for one house; `app_class` decides on the event loop (quart_trio.QuartTrio for trio).
    `observers` are told of every call at its end."""
    settings = context.settings
    app = app_class(__name__, static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=int(settings.max_body_mb * 2**20),
        BODY_TIMEOUT=BODY_TIMEOUT_S,
        RESPONSE_TIMEOUT=RESPONSE_TIMEOUT_S,
        PROPAGATE_EXCEPTIONS=False,
    )
    app.url_map.merge_slashes = False  # A path with two slashes is a wrong path, not a redirect.
    questions = Questions(context)
    for dialect in (chat_routes, response_routes, messages_routes):
        app.register_blueprint(dialect(context, questions))
    for routes in (completion_routes, model_routes, operation_routes, cache_routes, health_routes):
        app.register_blueprint(routes(context))
    app.register_blueprint(openapi_routes(settings))
    app.register_blueprint(page_routes())
    app.register_error_handler(Exception, respond)
    app.before_request(note_route)
    if settings.cors_origins:
        allow_origins(app, frozenset(settings.cors_origins))
    keep_door(app, settings, context.desk.now)
    metrics = [show_metrics(app, context)] if settings.enable_metrics else []
    app.asgi_app = CallKeeper(app.asgi_app, [Spans().observe, *metrics, *observers])  # type: ignore[method-assign]
    return app
