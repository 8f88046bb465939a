"""A version as JSON, in the form that an import takes."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from app.data.columns.schema import Column
from app.exchange.json_model import ColumnRecord, ModelRecord, StatisticsRecord, Unknowns, encode
from app.exchange.portable import PortableModel
from app.registry.version_file import Version
from app.regression.hypothesis_tests import covariances, infer
from app.regression.sufficient_statistics import Array

HISTORY = "The history, the metrics and the diagnostics of the version are not carried."
FOLDS = "The statistics of the folds of its cross-validation are not carried."


class JsonExport:
    """The model with its statistics, from which the same model can be imported and updated."""

    name = "json"
    media_type = "application/json"
    extension = ".json"
    options: Mapping[str, tuple[str, ...]] = {}

    def not_carried(self, version: Version) -> tuple[str, ...]:
        validation = version.card.validation
        return (HISTORY, *((FOLDS,) if validation is not None and validation.stored else ()))

    def write(self, version: Version, options: Mapping[str, str]) -> bytes:  # noqa: ARG002 - it has none
        model, card = PortableModel.of(version), version.card
        record = ModelRecord(
            features=_columns(model.table.features),
            targets=_columns(model.table.targets),
            terms=list(model.terms),
            columns=list(model.columns),
            coefficients=model.coef.tolist(),
            intercept=model.intercept.tolist(),
            centre=None if model.centre is None else model.centre.tolist(),
            start=None if model.start is None else model.start.tolist(),
            **_inference(version),
            source=f"Linserve {card.libraries.get('linserve-server', '')}, {card.model} version {card.version}",
        )
        return encode(record)


def _columns(columns: Iterable[Column]) -> list[str | ColumnRecord]:
    """Return the name of a plain column of numbers, and a record with the kind and the reading options of any other."""
    return [column.name if column == Column(column.name) else _record(column) for column in columns]


def _record(column: Column) -> ColumnRecord:
    return msgspec.convert(column, ColumnRecord, from_attributes=True)


def _inference(version: Version) -> dict[str, Any]:
    """Return the fields for intervals: the statistics, or the covariance if the version was imported with one."""
    model, imported = version.model, version.card.imported
    if imported is None or imported.given == "statistics":
        return {"statistics": _statistics(version)}
    if imported.given == "coefficients":
        return {}
    first = 0 if model.has_intercept else 1
    return {
        "covariance": covariances(model, infer(model))[:, first:, first:].tolist(),
        "residual_df": float(model.degrees_of_freedom),
        "rss": (model.residual_norms**2).tolist(),
        "weighted": not np.isfinite(model.statistics.log_weights),
    }


def _statistics(version: Version) -> StatisticsRecord:
    found, solver = version.model.statistics, version.card.solver
    return StatisticsRecord(
        rows=found.rows,
        effective_rows=found.effective_rows,
        shift=found.shift.tolist(),
        scale=found.scale.tolist(),
        factor=found.factor.tolist(),
        minimum=_or_null(found.minimum),
        maximum=_or_null(found.maximum),
        log_weights=found.log_weights if np.isfinite(found.log_weights) else None,
        operations=found.operations,
        removed=None if found.removed is None else found.removed.tolist(),
        indicator_rows=None if found.indicator_rows is None else found.indicator_rows.tolist(),
        weight_kind=found.weight_kind,
        discounted=found.discounted,
        untracked=found.untracked,
        fit_intercept=version.model.has_intercept,
        l2=getattr(solver, "l2", 0.0) or 0.0,
    )


def _or_null(values: Array) -> Unknowns:
    return [value if np.isfinite(value) else None for value in values.tolist()]
