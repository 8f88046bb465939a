"""The card of a version file from elsewhere: the fields that are used, and the checks of them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from app.data.columns.schema import PLAIN, Column, TableSchema
from app.data.columns.terms import encoded_terms, term_blocks
from app.data.columns.text_profile import MAX_LEVEL_LENGTH, MAX_LEVELS
from app.data.names import MAX_NAME_LENGTH, MAX_NAMES, check_names, shown
from app.errors import InvalidInput
from app.registry.foreign_statistics import statistics_faults
from app.registry.origin import Given
from app.registry.tensors import STATISTICS, TENSORS
from app.regression.errors import InvalidTerms
from app.regression.sufficient_statistics import SufficientStatistics, WeightKind
from app.regression.terms import parse_terms

MAX_TEXTS = 100  # Texts that mark a gap, or signs, in one column.
MAX_COEFFICIENTS = 200_000  # Most coefficients of a model.

# The tensors of statistics.
STATISTICS_READ = tuple(tensor.name for tensor in TENSORS if tensor.name.startswith(STATISTICS))


class ForeignSolver(msgspec.Struct, frozen=True):
    l2: Annotated[float, Meta(ge=0)] = 0.0
    fit_intercept: bool = True


class ForeignImport(msgspec.Struct, frozen=True):
    """How a version from elsewhere was imported there."""

    given: Given
    means_unknown: bool = False


class ForeignCard(msgspec.Struct, frozen=True, dict=True):
    """The fields of a card that are used. All others are ignored."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    rows: Annotated[int, Meta(ge=0, le=2**53)]
    schema: int
    model: Annotated[str, Meta(max_length=MAX_NAME_LENGTH)] = ""
    version: Annotated[int, Meta(ge=0, le=2**53)] = 0
    imported: ForeignImport | None = None
    table: TableSchema | None = None
    terms: tuple[str, ...] = ()
    weight_kind: WeightKind = "precision"
    discounted: bool = False
    untracked: bool = False
    solver: ForeignSolver = ForeignSolver()

    @cached_property
    def schema_of_rows(self) -> TableSchema:
        """The columns, as they are described in any file: without the dialect and the columns that were left out."""
        table = self.table or TableSchema.of_numbers(self.features, self.targets)
        return replace(table, dialect=PLAIN, left_out=(), rows=0, incomplete_rows=0)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the model: terms or features, encoded."""
        return encoded_terms(self.terms, self.schema_of_rows) or self.schema_of_rows.encoded_features

    @property
    def blocks(self) -> tuple[slice, ...]:
        """The places of the indicator columns in `columns`."""
        return term_blocks(self.terms, self.schema_of_rows)


class InvalidStatistics(Exception):
    """The message is the fault."""


def checked_statistics(card: ForeignCard, tensors: Mapping[str, NDArray[np.float64]]) -> SufficientStatistics:
    """Return the statistics with these tensors, of which all that are not optional are there.

    Raises InvalidStatistics if no rows have them.
    """
    values: dict[str, Any] = {name.removeprefix(STATISTICS): tensors.get(name) for name in STATISTICS_READ}
    for name in ("effective_rows", "log_weights", "operations"):
        values[name] = values[name].item()
    counts = values.pop("indicator_rows")
    statistics = SufficientStatistics(
        features=len(card.columns),
        rows=card.rows,
        weight_kind=card.weight_kind,
        discounted=card.discounted,
        untracked=card.untracked,
        **values,
    )
    with np.errstate(all="ignore"):  # the checks expect any value
        fault = next(statistics_faults(statistics, counts, card.blocks), None)
    if fault:
        raise InvalidStatistics(fault)
    return replace(
        statistics,
        operations=int(statistics.operations),
        indicator_rows=None if counts is None else counts.astype(np.int64),
    )


def card_faults(card: ForeignCard) -> Iterator[str]:
    """Yield what is wrong with a card. Later checks rely on the earlier ones."""
    if (card.rows == 0) != (card.imported is not None and card.imported.given == "coefficients"):
        yield f"it has {card.rows} rows"
    if max(len(card.features), len(card.targets), len(card.terms)) > MAX_NAMES:
        yield f"it has more than {MAX_NAMES} features, targets or terms"
    try:
        check_names(card.features, card.targets)
    except InvalidInput as error:
        yield error.details[0].message.rstrip(".")
    table = card.schema_of_rows
    if tuple(column.name for column in (*table.features, *table.targets)) != (*card.features, *card.targets):
        yield "its table has other features or targets"
    for column in table.numbers:
        yield from (f"the column {shown(column.name)} {fault}" for fault in column_faults(column))
    for column in table.targets:
        if column.kind not in ("number", "boolean") or column.missing not in ("drop", "refuse"):
            yield f"the target {shown(column.name)} is not a number"
    yield from _design_faults(card, table)
    if not math.isfinite(card.solver.l2):
        yield "its penalty is not finite"


def _design_faults(card: ForeignCard, table: TableSchema) -> Iterator[str]:
    encoded = sum(len(column.levels) + 1 for column in table.features)
    if encoded > 2 * MAX_NAMES + len(card.features):
        yield f"it has more than {MAX_NAMES} columns"
    if len(set(table.encoded_features)) < len(table.encoded_features):
        yield "the columns of its design are not distinct"
    try:
        parse_terms(encoded_terms(card.terms, table), table.encoded_features)
    except InvalidTerms:
        yield "its terms cannot be made from its features"
    if not 0 < len(card.columns) <= MAX_NAMES or len(card.columns) * len(card.targets) > MAX_COEFFICIENTS:
        yield "it has no columns or too many"


def column_faults(column: Column) -> Iterator[str]:
    if not 0 < len(column.name) <= MAX_NAME_LENGTH:
        yield "has a name that is too long"
    if bool(column.levels) != (column.kind == "category"):
        yield "has levels and is no category, or is a category without levels"
    if len(column.levels) > MAX_LEVELS or len(set(column.levels)) < len(column.levels):
        yield "has too many levels, or one twice"
    if any(len(level) > MAX_LEVEL_LENGTH for level in column.levels):
        yield "has a level that is too long"
    texts = (*column.na, *column.strip)
    if len(texts) > MAX_TEXTS or any(len(text) > MAX_LEVEL_LENGTH for text in texts):
        yield "has too many texts that mark gaps"
    if column.decimal == column.thousands:
        yield "has the same sign for decimals and for thousands"
    yield from _gap_faults(column)


def _gap_faults(column: Column) -> Iterator[str]:
    if isinstance(column.fill, str) and len(column.fill) > MAX_LEVEL_LENGTH:
        yield "has a constant that is too long"
    if isinstance(column.fill, str) and column.kind != "category":
        yield f"has a constant for its gaps that is not a {column.kind}"
    if isinstance(column.fill, float | int) and not math.isfinite(column.fill):
        yield "has a constant that is not finite"
    if column.kind != "category" and column.missing in ("fill", "indicator") and column.fill is None:
        yield "has no constant for its gaps"
    if column.missing == "fill" and column.kind == "category" and column.fill not in column.levels:
        yield "has a constant for its gaps that is not one of its levels"
    if column.missing == "fill" and column.kind == "boolean" and column.fill not in (0, 1):
        yield "has a constant for its gaps that is neither true nor false"
