"""Categories of other packages, as indicators of a feature's levels."""

from typing import Any

import numpy as np

from linserve.convert._design import MISSING, Atom, Feature, Polynomial, affine, value_of
from linserve.errors import NotConvertible


def indicators(feature: Feature, index: int, categories: list[Any], reference: int | None) -> list[Polynomial]:
    """Return the indicator of each category of a feature, by default with the first one as the reference level."""
    if all(isinstance(category, bool | np.bool_) for category in categories):
        feature.use_as("boolean")
        value = value_of(Atom(index))
        return [value if category else affine(value, -1.0, 1.0) for category in categories]
    levels = [None if is_gap(category) else _level(category, feature) for category in categories]
    known = [level for level in levels if level is not None]
    first = levels[reference] if reference is not None else None
    ordered = ([first] if first is not None else []) + [level for level in known if level != first]
    if not ordered or (feature.kind and feature.levels != ordered):
        raise NotConvertible(f"The feature {feature.name!r} is encoded twice, or has no categories.")
    if feature.kind and feature.has_missing_level != (None in levels):
        raise NotConvertible(
            f"The feature {feature.name!r} is encoded twice, and its gaps are a category of only one of them."
        )
    feature.use_as("category")
    feature.levels = ordered
    feature.has_missing_level = None in levels
    return [value_of(Atom(index, MISSING if level is None else level, is_level=True)) for level in levels]


def _level(category: Any, feature: Feature) -> str:
    """Return a category as the level of Linserve that the same values have."""
    if isinstance(category, str) and category.strip():
        return str(category)
    if isinstance(category, bool | np.bool_):  # next to a gap, because booleans alone are not levels
        return "true" if category else "false"
    if isinstance(category, int | np.integer):
        return str(int(category))
    if isinstance(category, str):
        raise NotConvertible(f"The feature {feature.name!r} has an empty text as a category, which is a gap here.")
    raise NotConvertible(
        f"The feature {feature.name!r} has categories of type {type(category).__name__}. Text, whole numbers and "
        "booleans can be imported."
    )


def is_gap(value: Any) -> bool:
    if value is None or type(value).__name__ == "NAType":
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))
