"""What every route is given: the settings, the front desk, the codec, and what the model is called."""

from dataclasses import dataclass
from pathlib import Path

from actors.desk import FrontDesk
from api.errors import ApiError
from api.text.codec import TextCodec
from runtime.settings import Settings
from runtime.types import ModelFacts


@dataclass(frozen=True, slots=True)
class ApiContext:
    """Built once, before the model is loaded."""

    settings: Settings
    desk: FrontDesk
    codec: TextCodec
    model_id: str
    """The id that replies and /v1/models carry."""
    created: int
    """What /v1/models says of when the model was made, in Unix seconds."""
    model_dir: Path | None = None
    """Where its files are; None if nobody may look."""

    def facts(self) -> ModelFacts:
        """What the loaded model is.

        Raises:
            ApiError: 503; it is not loaded yet.
        """
        facts = self.desk.facts()
        if facts is None:
            raise ApiError(503, "The model is still loading.", code="loading", headers={"Retry-After": "1"})
        return facts

    def check_model(self, name: str) -> None:
        """Any name is served by the loaded model, unless the operator is strict about it.

        Raises:
            ApiError: 404; `name` is not the model's id, and strict_model_id is set.
        """
        if self.settings.strict_model_id and name != self.model_id:
            raise no_such_model(name)


def no_such_model(name: str) -> ApiError:
    """A 404 for a model that is not served."""
    return ApiError(404, f"The model {name[:100]!r} does not exist.", param="model", code="model_not_found")
