"""Entity tags of models, and the conditions that name them (RFC 9110, 8.8.3 and 13.1)."""

from app.errors import PreconditionFailed
from app.registry.reader import ModelReader


def make_etag(model: str, current: int | None, versions: list[int]) -> str:
    """Return the tag of a model, which changes with every promotion, new version and deletion."""
    return f'"{model}/{"none" if current is None else current}/of-{len(versions)}-{versions[-1]}"'


def check_unchanged(registry: ModelReader, model: str, condition: str | None) -> None:
    """Raise PreconditionFailed if the condition does not name the model's present tag."""
    if condition is None:
        return
    etag = make_etag(model, registry.served_number(model), registry.versions(model))
    if not etag_matches(condition, etag, weakly=False):
        raise PreconditionFailed(
            "The model has changed, and with it its ETag. Read the model again before you repeat the request."
        )


def etag_matches(condition: str | None, etag: str, *, weakly: bool = True) -> bool:
    """Return True if the condition names this entity tag.

    If-None-Match compares weakly. If-Match does not, because a weak tag does not identify one state of the model.
    """
    names = [] if condition is None else [name.strip() for name in condition.split(",")]
    return "*" in names or etag in names or (weakly and f"W/{etag}" in names)
