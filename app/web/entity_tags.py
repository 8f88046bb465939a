"""Entity tags of models, and the conditions that name them (RFC 9110, 8.8.3 and 13.1)."""

from app.errors import PreconditionFailed
from app.registry.publisher import ModelPublisher


def tag_of(model: str, current: int | None, versions: list[int]) -> str:
    """Return the tag of a model, which changes with every promotion, new version and deletion."""
    return f'"{model}/{"none" if current is None else current}/of-{len(versions)}-{versions[-1]}"'


def check_unchanged(registry: ModelPublisher, model: str, condition: str | None) -> None:
    """Raise PreconditionFailed if the condition does not have the model's tag as it is now."""
    if condition is None:
        return
    tag = tag_of(model, registry.served_number(model), registry.versions(model))
    if not has(condition, tag, weakly=False):
        raise PreconditionFailed(
            "The model has changed, and with it its ETag. Read the model again before you repeat the request."
        )


def has(condition: str | None, tag: str, *, weakly: bool = True) -> bool:
    """Return True if the condition names this entity tag.

    If-None-Match compares weakly. If-Match does not, because a weak tag does not identify one state of the model.
    """
    found = [] if condition is None else [one.strip() for one in condition.split(",")]
    return "*" in found or tag in found or (weakly and f"W/{tag}" in found)
