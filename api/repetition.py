"""Who may choose a repetition policy, and which one a request is under."""

from api.errors import bad_request
from api.schema.generation import GenerationBody
from runtime.settings import Settings
from runtime.types import RepetitionPolicy

FIELD = "repetition_policy_override"


def trusted(settings: Settings) -> bool:
    """Whether requests may choose: all that get past a key may, and without a key those of an operator who says so."""
    return settings.api_key is not None or settings.trust_requests_when_auth_disabled


def repetition_policy(body: GenerationBody, settings: Settings, *, constrained: bool) -> RepetitionPolicy:
    """The policy that `body` is under. What a grammar makes a reply repeat it did not choose: there `safe` is all.

    Raises:
        ApiError: 400; it asks for a policy, and is not trusted.
    """
    asked = body.repetition_policy_override
    if asked and not trusted(settings):
        raise bad_request(
            f"{FIELD}: this server takes it from nobody, because it has no key to tell whom to trust; start it with "
            "--api-key or with --trust-requests-when-auth-disabled.",
            param=FIELD,
        )
    if constrained:
        return RepetitionPolicy.SAFE
    return RepetitionPolicy(asked) if asked else settings.repetition_policy
