"""A linear model without its statistics: what every format of models has in common."""

from dataclasses import dataclass, field

import numpy as np

from app.data.columns.schema import TableSchema
from app.data.columns.terms import encoded_terms
from app.registry.version_file import Version
from app.regression.sufficient_statistics import Array


@dataclass(frozen=True, eq=False)
class PortableModel:
    """Predicts y = coef (columns - centre) + start, with the columns that the table and the terms make of a row."""

    table: TableSchema  # features, with their kinds, levels and gaps, and targets
    coef: Array  # (k, p), a row for each target
    intercept: Array  # (k,), the prediction if all columns are 0
    terms: tuple[str, ...] = ()  # over the features of the table, as in a card; empty if the columns are the features
    centre: Array | None = None  # (p,), subtracted from the columns if the model needs it for its accuracy
    start: Array | None = None  # (k,), the prediction at the centre
    description: dict[str, str] = field(default_factory=dict)  # for people: model, version, created_at

    @classmethod
    def of(cls, version: Version) -> "PortableModel":
        """Return the model of a version, which predicts what the version predicts."""
        card, model = version.card, version.model
        centre = model.centre
        return cls(
            card.schema_of_rows,
            model.coef,
            model.intercept,
            card.terms,
            centre,
            None if centre is None else model.start,
            {"model": card.model, "version": str(card.version), "created_at": card.created_at},
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `coef`."""
        return encoded_terms(self.terms, self.table) or self.table.encoded_features

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.table.targets)

    def predict(self, columns: Array) -> Array:
        """Return predictions (n, k) for rows of columns (n, p)."""
        if self.centre is None or self.start is None:
            return np.asarray(columns @ self.coef.T + self.intercept)
        return np.asarray((columns - self.centre) @ self.coef.T + self.start)
