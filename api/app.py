"""The HTTP application: every route, behind one key, with one way to say what went wrong."""

from quart import Quart

from api.auth import require_key
from api.call import CallKeeper
from api.chat import chat_routes
from api.completions import completion_routes
from api.context import ApiContext
from api.errors import respond
from api.models import model_routes
from api.operations import operation_routes

BODY_TIMEOUT_S = 60
"""How long a request's body may take to arrive."""

RESPONSE_TIMEOUT_S = 60
"""How long a whole reply may take to send; streams have no such limit."""


def create_app(context: ApiContext, *, app_class: type[Quart] = Quart) -> Quart:
    """The application for one house; `app_class` decides on the event loop (quart_trio.QuartTrio for trio)."""
    app = app_class(__name__, static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=int(context.settings.max_body_mb * 2**20),
        BODY_TIMEOUT=BODY_TIMEOUT_S,
        RESPONSE_TIMEOUT=RESPONSE_TIMEOUT_S,
        PROPAGATE_EXCEPTIONS=False,
    )
    app.url_map.merge_slashes = False  # A path with two slashes is a wrong path, not a redirect.
    for routes in (chat_routes, completion_routes, model_routes, operation_routes):
        app.register_blueprint(routes(context))
    app.register_error_handler(Exception, respond)
    if context.settings.api_key is not None:
        require_key(app, context.settings.api_key)
    app.asgi_app = CallKeeper(app.asgi_app)  # type: ignore[method-assign]
    return app
