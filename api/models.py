"""GET /v1/models: the one model there is."""

from quart import Blueprint

from api.context import ApiContext, no_such_model


def model_routes(context: ApiContext) -> Blueprint:
    """What is served, under its real name."""
    routes = Blueprint("models", __name__)
    model = {"id": context.model_id, "object": "model", "created": context.created, "owned_by": "troupe"}

    @routes.get("/v1/models")
    async def list_models() -> dict[str, object]:
        return {"object": "list", "data": [model]}

    @routes.get("/v1/models/<path:model_id>")
    async def get_model(model_id: str) -> dict[str, object]:
        if model_id != context.model_id:
            raise no_such_model(model_id)
        return {**model}

    return routes
