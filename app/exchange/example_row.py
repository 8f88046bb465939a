"""A row for an example: the means of the training rows, rounded, and the reference levels."""

from datetime import date, timedelta

import numpy as np

from app.data.columns.schema import Column
from app.registry.version_file import Version

DIGITS = 3  # Significant digits of a mean.
HALF = 0.5  # Mean of a boolean at or above which its example is True.
_EPOCH = date(1970, 1, 1)
_FIRST, _LAST = (date(1900, 3, 1) - _EPOCH).days, (date(9999, 12, 31) - _EPOCH).days  # Days that all programs can hold.


def example_row(version: Version) -> dict[str, float | bool | str | date]:
    """Return a value for each feature. A number whose mean is not known is 1, and a date is that of the version."""
    model = version.model
    known = model.statistics.mean.tolist() if model.has_statistics else []
    means = dict(zip(model.columns, known, strict=False))  # those of the targets follow
    made = date.fromisoformat(version.card.created_at[:10])
    return {column.name: _value(column, means.get(column.name, np.nan), made) for column in version.table.features}


def _value(column: Column, mean: float, made: date) -> float | bool | str | date:
    if column.kind == "category":
        return column.levels[0]
    if column.kind == "boolean":
        return mean >= HALF
    if column.kind == "date":
        return made if np.isnan(mean) else _EPOCH + timedelta(days=min(max(round(mean), _FIRST), _LAST))
    return 1.0 if np.isnan(mean) else float(f"{mean:.{DIGITS}g}")
