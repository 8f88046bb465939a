"""A model card as the API shows it: the stored fields, and the statistics computed from the version."""

from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np

from app.prediction.estimates import inference_bytes
from app.registry.model_card import ModelCard
from app.registry.version_file import Version
from app.regression.linear_model import LinearModel
from app.regression.solvers import solver_to_record
from app.web.card_categories import CategoryStatistics
from app.web.card_reasons import OF_THE_JOB, NullReasons
from app.web.card_statistics import CardStatistics
from app.web.schemas.models import ModelView, imported_to_view
from app.web.schemas.tables import table_to_view

DEFAULT_LEVEL = 0.95  # Level of the confidence intervals of the coefficients.

# Bytes that a card takes while it is computed from a decomposed design, measured without covariances: matrices of the
# design's size, and what each coefficient of each target takes in the statistics and in JSON.
DECOMPOSED_FACTOR = 2
COEFFICIENT_BYTES = 700
NUMBER_BYTES = 8

Extra: TypeAlias = Literal["covariance"]


def model_to_view(
    version: Version, *, current: bool, level: float = DEFAULT_LEVEL, include: Extra | None = None
) -> dict[str, Any]:
    """Return the card as ModelView describes it. In JSON, NaN and infinity become null.

    Raises InvalidInput if what is to be included is too large.
    """
    card, model = version.card, version.model
    reasons = NullReasons(version)
    ranges = np.column_stack(model.ranges).tolist()
    for index in np.flatnonzero(model.unknown_ranges).tolist():
        ranges[index] = None
    values = {
        "current": current,
        "intercept": dict(zip(card.targets, model.intercept.tolist(), strict=True)),
        "coefficients": {
            target: dict(zip(model.columns, row, strict=True))
            for target, row in zip(card.targets, model.coef.tolist(), strict=True)
        },
        "confidence_level": level,
        **CardStatistics(version, level, reasons).fields(covariance=include == "covariance"),
        **CategoryStatistics(version, level, reasons).fields(),
        "table": table_of(card),
        "unavailable": reasons.by_path,
        "diagnostics": _without_reasons(card.diagnostics),
        "validation": None if card.validation is None else msgspec.to_builtins(card.validation),
        "ranges": dict(zip(model.columns, ranges, strict=True)),
        "solver": solver_of(card),
        "imported": None if card.imported is None else imported_to_view(card.imported),
        **(dict.fromkeys(("rows", "rank", "weight_kind")) if not model.has_statistics else {}),
        **(dict.fromkeys(OF_THE_JOB) if card.imported is not None else {}),
        "shares": None if card.shares is None else {str(number): share for number, share in card.shares.items()},
    }
    reasons.explain_card()
    return {name: values[name] if name in values else getattr(card, name) for name in ModelView.model_fields}


def solver_of(card: ModelCard) -> dict[str, Any]:
    """Return the solver with its options, or its kind alone if the file of an imported model did not say them."""
    record = solver_to_record(card.solver)
    return {"kind": record["kind"]} if card.imported is not None and not card.imported.is_fit else record


def table_of(card: ModelCard) -> dict[str, Any]:
    """Return the table as TableView describes it. Its rows and gaps are not known if the version was imported."""
    view = table_to_view(card.schema_of_rows, card.gaps)
    if card.imported is None:
        return view
    columns = {role: [{**column, "gaps": None} for column in view[role]] for role in ("features", "targets")}
    return {**view, **columns, "rows": None, "incomplete_rows": None}


def _without_reasons(diagnostics: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the diagnostics without the reasons for their nulls, which are with those for the card's other nulls."""
    if diagnostics is None:
        return None
    return {name: value for name, value in diagnostics.items() if name != "unavailable"}


def view_bytes(model: LinearModel, include: Extra | None) -> int:
    """Return an estimate of the bytes that `model_to_view` and its JSON take in addition to the model."""
    size = inference_bytes(model)
    if include is None and model.has_decomposed_design:
        design = DECOMPOSED_FACTOR * NUMBER_BYTES * len(model.columns) ** 2
        size = min(size, design + COEFFICIENT_BYTES * model.coef.size)
    return size
