"""Model cards as a client reads them, of which each null has a reason."""

from collections.abc import Iterator
from typing import Any

import orjson

from app.registry.version_file import Version
from app.web.model_view import Extra, model_to_view
from app.web.schemas.models import ModelView


def card_of(version: Version, *, level: float = 0.95, include: Extra | None = None) -> dict[str, Any]:
    """The card as a client reads it."""
    view = model_to_view(version, current=True, level=level, include=include)
    card: dict[str, Any] = orjson.loads(orjson.dumps(view, option=orjson.OPT_SERIALIZE_NUMPY))
    ModelView.model_validate(card)
    check_reasons(card)
    return card


def nulls(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if value is None:
        yield path
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from nulls(part, (*path, name))


def check_reasons(card: dict[str, Any]) -> None:
    """Every null has a reason, and every reason is for a null. Options that are not set, and reasons, are exempt."""
    statistics = {
        name: value
        for name, value in card.items()
        if name not in ("solver", "table", "inference_unavailable", "no_folds", "imported")
    }
    reasons = {tuple(path.split(".")) for path in card["unavailable"]}

    def explains(reason: tuple[str, ...], path: tuple[str, ...]) -> bool:
        return len(reason) <= len(path) and all(a in ("*", b) for a, b in zip(reason, path, strict=False))

    found = list(nulls(statistics))
    for path in found:
        assert any(explains(reason, path) for reason in reasons), path
    for reason in reasons:
        assert reason[0] == "covariance" or any(explains(reason, path) for path in found), reason
