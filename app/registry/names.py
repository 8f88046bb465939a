"""Names of models, and the errors for those that do not exist."""

import re

from app.errors import Conflict, ModelNotFound, VersionNotFound

MODEL_NAME = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
MODEL_NAME_RULE = (
    "A model's name has 1 to 64 of a-z, 0-9, dot, underscore and hyphen, and begins and ends with a letter or digit."
)


def no_model(model: str) -> ModelNotFound:
    """Return the error for a model that does not exist."""
    rule = "" if re.fullmatch(MODEL_NAME, model) else f" {MODEL_NAME_RULE}"
    return ModelNotFound(f'There is no model "{_quotable(model)}".{rule} GET /models lists the models.')


def no_version(model: str, number: int) -> VersionNotFound:
    """Return the error for a version that does not exist."""
    name = _quotable(model)
    return VersionNotFound(f'Model "{name}" has no version {number}. GET /models/{name} lists its versions.')


def version_deleted(model: str, number: int) -> Conflict:
    """Return the error for a job that is run again, and whose version was deleted after its publication."""
    return Conflict(f'The version of this job was deleted. It was version {number} of "{model}".')


def _quotable(model: str) -> str:
    # A name that no model can have may be any text, and is not repeated to the client.
    return model if re.fullmatch(MODEL_NAME, model) else "..."
