"""The columns of the design of a job, compared with those of earlier versions, which may have other levels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from app.data.columns.schema import TableSchema
from app.data.columns.terms import encoded_terms
from app.data.names import MAX_NAMES, listed, shown
from app.errors import FieldError, InvalidInput
from app.registry.base import ModelReader
from app.registry.version_file import Version
from app.regression.column_changes import aligned
from app.regression.cross_validation import FoldStatistics
from app.regression.fit import Base
from app.regression.solvers import GradientDescent, Solver, Start
from app.regression.solvers.base import Coefficients
from app.regression.sufficient_statistics import Array
from app.regression.terms import parse_terms
from app.training.columns import MAX_COEFFICIENTS
from app.training.dataset import JobRows
from app.training.initial_coefficients import check_start_columns
from app.training.parent import BaseVersion
from app.training.request import TrainingRequest


def with_schema(request: TrainingRequest, schema: TableSchema) -> TrainingRequest:
    """Return the request with the features of the schema.

    Raises InvalidInput if terms, initial coefficients or limits do not fit the columns of the design.
    """
    if not schema.features:
        reasons = ", ".join(f"{shown(column.name)} ({column.reason})" for column in schema.left_out)
        raise InvalidInput(f"No feature is left to train on. Left out: {reasons}. Name some in `features`.")
    _check_distinct(schema)
    if request.terms:
        _check_terms(request.terms, schema)
    columns = encoded_terms(request.terms, schema) or schema.encoded_features
    if len(columns) > MAX_NAMES or len(columns) * len(request.targets) > MAX_COEFFICIENTS:
        raise _too_many(len(columns), len(request.targets), schema)
    _check_start(request, columns)
    return replace(request, features=tuple(column.name for column in schema.features))


def _check_distinct(schema: TableSchema) -> None:
    owners: dict[str, str] = {}
    for column in schema.features:
        for name in column.encoded_names:
            if (owner := owners.setdefault(name, column.name)) != column.name:
                message = (
                    f"The columns {shown(owner)} and {shown(column.name)} would both have a coefficient {shown(name)}."
                )
                raise InvalidInput(f"{message} Rename one of them, or a level.")
        if len(set(column.encoded_names)) < len(column.encoded_names):
            message = f"The column {shown(column.name)} has a level with the name of its indicator of gaps."
            raise InvalidInput(f"{message} Rename the level, or use another option than `missing=indicator`.")


def _check_terms(terms: Sequence[str], schema: TableSchema) -> None:
    names = [column.name for column in schema.features]
    details = []
    for index, factors in enumerate(parse_terms(terms, names)):
        columns = [schema.features[place] for place, _ in factors]
        categories = [column.name for column in columns if column.kind == "category"]
        if categories and terms[index] not in names:
            message = (
                f"The column {shown(categories[0])} is a category, which cannot be in a power or a product. Give it as "
                "a term of its own."
            )
            details.append(FieldError(message, pointer=f"/terms/{index}"))
    if details:
        raise InvalidInput(details[0].message, details)


def _too_many(columns: int, targets: int, schema: TableSchema) -> InvalidInput:
    wide = sorted(schema.features, key=lambda column: -len(column.encoded_names))
    levels = [f"{shown(column.name)} has {len(column.levels)} levels" for column in wide if column.levels][:10]
    named = f" {', '.join(levels)}." if levels else ""
    return InvalidInput(
        f"{columns} columns of the design for {targets} target(s): a model has at most {MAX_NAMES} columns and "
        f"{MAX_COEFFICIENTS} coefficients.{named} Leave columns out with `drop`, or combine levels."
    )


def _check_start(request: TrainingRequest, columns: Sequence[str]) -> None:
    start = request.solver.start if isinstance(request.solver, GradientDescent) else None
    if not isinstance(start, Start) or start.weights is None:
        return
    if any(len(row) != len(columns) for row in start.weights):
        # The message of the error is logged, and may not hold levels.
        message = f"Expected {len(request.targets)} rows of {len(columns)} weights"
        detail = FieldError(f"{message}, for the columns {listed(columns)}.", pointer="/solver/start/weights")
        raise InvalidInput(f"{message}.", [detail])


def base_of(base: BaseVersion, folds: FoldStatistics, columns: Sequence[str]) -> Base:
    """Return the base of a fit with the columns of the job's rows, which may have more levels."""
    card = base.version.card
    return Base(
        aligned(base.version.model.statistics, card.columns, columns),
        base.mode,
        base.share,
        {number: aligned(fold, card.columns, columns) for number, fold in folds.items()},
    )


def has_kinds_of(version: Version, schema: TableSchema) -> bool:
    """Return True if the version's features have the names and kinds of the schema."""
    return _kinds(version.card.schema_of_rows) == _kinds(schema)


def _kinds(schema: TableSchema) -> list[tuple[str, str]]:
    return [(column.name, column.kind) for column in schema.features]


def coefficients_on(version: Version, schema: TableSchema, columns: Sequence[str]) -> Coefficients:
    """Return the version's coefficients for `columns` of a design with this schema, which may have other levels.

    A level that the version does not know counts as its reference level. The features have the same kinds in both.
    """
    model = version.model
    if version.card.columns == tuple(columns):
        return Coefficients(model.coef, model.intercept)
    known = {name: place for place, name in enumerate(version.card.columns)}
    present = set(columns)

    def effect(name: str) -> Array:
        return model.coef[:, known[name]] if name in known else np.zeros(len(model.targets))

    intercept = model.intercept.copy()
    differences: dict[str, Array] = {}
    for column in schema.features:
        if column.kind != "category" or present.isdisjoint(column.encoded_names):
            continue
        reference = effect(f"{column.name}[{column.levels[0]}]")  # 0 if it is the version's reference level, too
        intercept += reference
        differences |= {name: effect(name) - reference for name in column.encoded_names}
    coef = [differences[name] if name in differences else effect(name) for name in columns]
    return Coefficients(np.column_stack(coef), intercept)


def with_coefficients_of_version(request: TrainingRequest, rows: JobRows, registry: ModelReader) -> Solver:
    """Return the solver with the coefficients of the version that it starts from, if any. Raises InvalidInput.

    A level that the version does not know starts from its reference level.
    """
    solver = request.solver
    if not isinstance(solver, GradientDescent) or not isinstance(solver.start, Start) or solver.start.version is None:
        return solver
    version = registry.version(request.model, solver.start.version)
    check_start_columns(version, request, "/solver/start/version")
    if not has_kinds_of(version, rows.schema):
        number = version.card.version
        raise InvalidInput.at("/solver/start/version", f"Version {number} has other kinds of features than these rows.")
    coefficients = coefficients_on(version, rows.schema, rows.columns)
    start = Start(weights=coefficients.coef.tolist(), intercept=coefficients.intercept.tolist())
    return replace(solver, start=start)
