"""Turn an imported model into a version: check it, compare it with its statistics, and write its card."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from app import __version__
from app.data.names import shown
from app.errors import InvalidInput
from app.exchange.imported import Covariance, ImportedModel, Statistics
from app.exchange.portable import PortableModel
from app.registry.fit_card import bounds_of, metrics_of, warnings_of
from app.registry.foreign_card import ForeignCard, card_faults
from app.registry.model_card import SCHEMA, ModelCard
from app.registry.origin import WITHOUT_STATISTICS, Imported
from app.registry.version_file import Version
from app.regression.covariance import LeastSquares, statistics_of, unscaled_errors
from app.regression.errors import FitError
from app.regression.given_coefficients import judge
from app.regression.least_squares import ESSENTIALLY_PERFECT, MIN_FREEDOM, Fit, is_essentially_perfect
from app.regression.linear_model import LinearModel
from app.regression.precision import precision_loss
from app.regression.solvers import Imported as ImportedSolver
from app.regression.sufficient_statistics import Array

LOW_FREEDOM = "Less than one residual degree of freedom is left to estimate an error from."
NO_RANGES = "The ranges of the columns in training are not known, so values outside of them are not noticed."
WEIGHTED = (
    "The rows had weights. Prediction intervals are for an observation of their mean weight; `instance_weights` gives "
    "others."
)
MAX_WARNINGS = 20
WORKING_COPIES = 12  # Matrices of the size of the statistics in memory at once during the checks.
COVARIANCE_COPIES = 6  # Copies of all covariances in memory at once while they are compared.
_NUMBER_BYTES = 8


def publishing_bytes(imported: ImportedModel) -> int:
    """Return an estimate of the bytes that `to_version` and encoding its file take."""
    k, p = len(imported.portable.targets), len(imported.portable.columns)
    if imported.statistics is None and imported.covariance is None:
        return WORKING_COPIES * _NUMBER_BYTES * k * p
    given = 0 if imported.covariance is None else imported.covariance.covariance.nbytes
    return WORKING_COPIES * _NUMBER_BYTES * (1 + p + k) ** 2 + COVARIANCE_COPIES * given


def to_version(imported: ImportedModel, model: str, origin: Imported, upload: str | None = None) -> Version:
    """Return a version that predicts what the imported model predicts. The registry gives its number.

    `origin` needs only the format and the fingerprint. Raises InvalidInput.
    """
    portable = imported.portable
    _check(portable)
    try:
        with np.errstate(all="ignore"):
            if imported.covariance is not None:
                fitted = _from_covariance(portable, imported.covariance)
            elif imported.statistics is not None:
                fitted = _from_statistics(portable, imported.statistics)
            else:
                fitted = _without(portable)
    except FitError as error:
        raise _invalid(imported, error.message) from None
    except (np.linalg.LinAlgError, ArithmeticError):
        raise _invalid(imported, "The statistics of the model cannot be used: they give no finite numbers.") from None
    card, linear = fitted
    assert card.imported is not None
    origin = replace(
        origin, given=card.imported.given, means_unknown=card.imported.means_unknown, source=imported.source
    )
    warnings = (*imported.warnings, *card.warnings)[:MAX_WARNINGS]
    return Version(replace(card, model=model, imported=origin, upload=upload, warnings=warnings), linear)


def _invalid(imported: ImportedModel, message: str) -> InvalidInput:
    """Return the error with its place. Only the JSON form has covariances."""
    return InvalidInput(message) if imported.covariance is None else InvalidInput.at("/covariance", message)


def _check(portable: PortableModel) -> None:
    """Raise InvalidInput unless the columns are those of a version, and the numbers fit them."""
    table = portable.table
    features = tuple(column.name for column in table.features)
    card = ForeignCard(features, portable.targets, 1, SCHEMA, table=table, terms=portable.terms)
    if fault := next(card_faults(card), None):
        raise InvalidInput(f"The model cannot be a version of this service: {fault}.")
    if blank := [column.name for column in table.features for level in column.levels if not level.strip()]:
        raise InvalidInput(f"A level of {shown(blank[0])} is empty, which would be a gap. Remove it, or name it.")
    k, p = len(card.targets), len(card.columns)
    shapes = [("matrix of coefficients", portable.coef, (k, p)), ("intercept", portable.intercept, (k,))]
    if (portable.centre is None) != (portable.start is None):
        raise InvalidInput("`centre` and `start` are given together, or not at all.")
    if portable.centre is not None and portable.start is not None:
        shapes += [("centre", portable.centre, (p,)), ("start", portable.start, (k,))]
    for name, values, shape in shapes:
        if values.shape != shape:
            found, needed = _shown(values.shape), _shown(shape)
            raise InvalidInput(
                f"The {name} has the shape {found}. With these columns and targets, it has to be {needed}."
            )
        if not np.isfinite(values).all():
            raise InvalidInput(f"The {name} has numbers that are not finite.")


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "()"


def _without(portable: PortableModel) -> tuple[ModelCard, LinearModel]:
    """Return the card and the model of coefficients alone."""
    unknown = np.full(len(portable.targets), np.nan)
    model = replace(
        _model(portable),
        residual_norms=unknown,
        centre_prediction=portable.start,
        stored_centre=portable.centre,
        inference_unavailable=WITHOUT_STATISTICS,
        stored_rank=0,
    )
    measures = dict.fromkeys(("r2", "adjusted_r2", "rmse"))
    metrics: dict[str, Any] = {target: dict(measures) for target in portable.targets}
    card = _card(portable, Imported("", "coefficients", means_unknown=True), metrics | {"mse": None})
    return replace(card, inference_unavailable=WITHOUT_STATISTICS), model


def _from_covariance(portable: PortableModel, given: Covariance) -> tuple[ModelCard, LinearModel]:
    """Return the card and the model of a least-squares fit whose covariance is known."""
    has_intercept = given.covariance.shape[1:] != (len(portable.columns),) * 2
    if not has_intercept and portable.intercept.any():
        raise InvalidInput("The covariance has no row for the intercept, so the intercept has to be 0.")
    fit = LeastSquares(
        portable.coef, portable.intercept, given.covariance, given.residual_df, given.rss, given.weighted
    )
    statistics = statistics_of(fit, portable.centre)
    norms = np.sqrt(given.rss)
    model = replace(
        _model(portable),
        known_statistics=statistics,
        residual_norms=norms,
        unscaled_errors=unscaled_errors(fit),
        centre_prediction=portable.start,
        has_intercept=has_intercept,
    )
    reason = LOW_FREEDOM if given.residual_df < MIN_FREEDOM else _perfect(model, norms)
    model = replace(model, inference_unavailable=reason, unscaled_errors=None if reason else model.unscaled_errors)
    rank = len(portable.columns) + has_intercept
    origin = Imported("", "covariance", means_unknown=not has_intercept)
    card = _card(portable, origin, metrics_of(model, model.design, None), fit_intercept=has_intercept)
    return replace(
        card,
        rows=statistics.rows,
        rank=rank,
        condition_number=model.design.condition_number,
        inference_unavailable=reason,
        warnings=(NO_RANGES, *([WEIGHTED] if given.weighted else [])),
    ), replace(model, stored_rank=rank)


def _perfect(model: LinearModel, norms: Array) -> str | None:
    fit = Fit(model.coef, model.intercept, model.intercept, norms, norms, model.design)
    return ESSENTIALLY_PERFECT if is_essentially_perfect(model.statistics, fit).any() else None


def _from_statistics(portable: PortableModel, given: Statistics) -> tuple[ModelCard, LinearModel]:
    """Return the card and the model of coefficients whose training rows are known by their statistics."""
    statistics = given.values
    at_shift = given.centre_prediction
    if at_shift is None and portable.centre is not None:
        if not np.array_equal(portable.centre, statistics.shift[: statistics.features]):
            raise InvalidInput("The centre has to be the shift of the statistics, or left out.")
        at_shift = portable.start
    solution = judge(
        statistics, portable.coef, portable.intercept, at_shift, l2=given.l2, fit_intercept=given.fit_intercept
    )
    design = solution.optimum.design
    model = replace(
        _model(portable),
        known_statistics=statistics,
        residual_norms=solution.residual_norms,
        unscaled_errors=solution.unscaled_errors,
        centre_prediction=at_shift,
        has_intercept=given.fit_intercept,
        inference_unavailable=solution.inference_unavailable,
    )
    origin = Imported("", given.given, means_unknown=given.means_unknown)
    solver = ImportedSolver(l2=given.l2, fit_intercept=given.fit_intercept)
    card = _card(portable, origin, metrics_of(model, design, None), solver=solver)
    tracked = not statistics.untracked
    return replace(
        card,
        rows=statistics.rows,
        rank=design.rank,
        condition_number=design.condition_number,
        weight_kind=statistics.weight_kind,
        discounted=statistics.discounted,
        untracked=statistics.untracked,
        earlier_shares=None if statistics.discounted else {},
        precision_loss=precision_loss(statistics) if tracked else None,
        precision_bounds=bounds_of(solution.bounds, portable.targets) if tracked else None,
        inference_unavailable=solution.inference_unavailable,
        warnings=(
            *([NO_RANGES] if np.isnan(statistics.minimum).any() else []),
            *warnings_of(model, design, solver, refined=False),
        ),
    ), model


def _model(portable: PortableModel) -> LinearModel:
    """Return the model without statistics."""
    table = portable.table
    terms = portable.columns if portable.terms else ()
    unknown = np.full(len(portable.targets), np.nan)
    coef = np.ascontiguousarray(portable.coef, dtype=np.float64)
    return LinearModel(table.encoded_features, portable.targets, coef, portable.intercept, None, unknown, terms=terms)


def _card(
    portable: PortableModel,
    origin: Imported,
    metrics: dict[str, Any],
    *,
    fit_intercept: bool = True,
    solver: ImportedSolver | None = None,
) -> ModelCard:
    """Return the card of a model without statistics."""
    return ModelCard(
        model="",
        version=0,
        features=tuple(column.name for column in portable.table.features),
        targets=portable.targets,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        job=None,
        parent=None,
        solver=solver or ImportedSolver(fit_intercept=fit_intercept),
        rows=0,
        rank=0,
        condition_number=None,
        metrics=metrics,
        table=replace(portable.table, rows=0, incomplete_rows=0, left_out=()),
        terms=portable.terms,
        no_diagnostics="The version was imported, without its rows.",
        libraries={"linserve-server": __version__},
        imported=origin,
    )
