"""The columns of several versions of one model, for a merge of their statistics."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from app.data.columns.schema import Column, TableSchema
from app.data.columns.terms import encoded_terms, term_blocks
from app.data.names import listed, shown
from app.errors import FieldError, InvalidInput
from app.regression.column_changes import rebased, refilled, spread, with_targets
from app.regression.sufficient_statistics import SufficientStatistics, WeightKind
from app.training.parent import changes_listed, column_changes

MAX_DETAILS = 20
_REPLACED = ("indicator", "fill")  # policies by which a constant takes the place of a gap


class VersionColumns(Protocol):
    """The columns of one version, as a card has them."""

    @property
    def features(self) -> tuple[str, ...]: ...

    @property
    def targets(self) -> tuple[str, ...]: ...

    @property
    def terms(self) -> tuple[str, ...]: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def weight_kind(self) -> WeightKind: ...

    @property
    def schema_of_rows(self) -> TableSchema: ...


@dataclass(frozen=True)
class UnitedColumns:
    """Columns with the levels of all versions. Order and reference levels are those of the first version."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    terms: tuple[str, ...]
    weight_kind: WeightKind
    table: TableSchema

    @classmethod
    def of(cls, version: VersionColumns) -> "UnitedColumns":
        return cls(version.features, version.targets, version.terms, version.weight_kind, version.schema_of_rows)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the model: terms or features, encoded."""
        return encoded_terms(self.terms, self.table) or self.table.encoded_features

    @property
    def blocks(self) -> tuple[slice, ...]:
        return term_blocks(self.terms, self.table)

    def joined(self, other: VersionColumns, label: str, *, adds: bool = True) -> "UnitedColumns":
        """Return the columns with the levels of another version, which `label` names.

        Unless it `adds` rows, it may have no new levels. Raises InvalidInput if its columns are others.
        """
        changes = column_changes(other.features, other.targets, self)
        if any(names for _, names in changes):
            raise InvalidInput(f"{label} has other columns than the model. {changes_listed(changes)}")
        if set(other.terms or other.features) != set(self.terms or self.features):
            raise InvalidInput(
                f"{label} has other terms than the model: {_listed(other.terms)} and not {_listed(self.terms)}."
            )
        if other.weight_kind != self.weight_kind:
            raise InvalidInput(
                f"{label} has {other.weight_kind} weights, and the model has {self.weight_kind} weights."
            )
        theirs = {column.name: column for column in other.schema_of_rows.numbers}
        details = [
            FieldError(fault, column=column.name)
            for column in (*self.table.features, *self.table.targets)
            for fault in self._faults(column, theirs[column.name], label, adds=adds)
        ]
        if details:
            raise InvalidInput(details[0].message, details[:MAX_DETAILS])
        if not adds:
            return self
        features = tuple(_united(column, theirs[column.name]) for column in self.table.features)
        weight = self.table.weight or other.schema_of_rows.weight
        if weight is not None and self.table.weight is None and weight.name in (*self.features, *self.targets):
            weight = None  # Its name has another use here.
        return replace(self, table=replace(self.table, features=features, weight=weight))

    def _faults(self, ours: Column, theirs: Column, label: str, *, adds: bool) -> Iterator[str]:
        """Yield why the rows of two columns cannot be added."""
        name = shown(ours.name)
        if ours.kind != theirs.kind:
            yield f"The column {name} is a {ours.kind} in the model and a {theirs.kind} in {label}."
            return
        policies = [column.missing for column in (ours, theirs) if column.missing in _REPLACED]
        if len(set(policies)) > 1:
            yield f"Gaps of the column {name} are treated by `{ours.missing}` in the model and differently in {label}."
        elif len(policies) > 1 and ours.fill != theirs.fill and not self._can_be_refilled(ours):
            yield f"Gaps of the column {name} have another constant in {label} than in the model."
        if not adds and set(theirs.levels) - set(ours.levels):
            yield f"The column {name} has levels in {label} that the model does not have."
        if not adds and theirs.missing == "indicator" and ours.missing != "indicator":
            yield f"The column {name} has an indicator of gaps in {label}, and not in the model."

    def _can_be_refilled(self, column: Column) -> bool:
        """Return True if another constant in place of gaps is a linear change of the columns."""
        return column.missing == "indicator" and column.kind != "category" and self._is_own_term(column.name)

    def _is_own_term(self, name: str) -> bool:
        return not self.terms or [term for term in self.terms if name in term] == [name]

    def align(self, statistics: SufficientStatistics, version: VersionColumns) -> SufficientStatistics:
        """Return the statistics of a version that was joined, with these columns and reference levels."""
        columns, table = list(version.columns), version.schema_of_rows
        ours = {column.name: column for column in self.table.features}
        used = set(columns)
        for column in table.features:
            known = ours[column.name]
            if column.kind == "category" and column.levels[0] != known.levels[0] and self._has(column.name):
                statistics = _with_reference(statistics, columns, column, known.levels[0])
            if column.kind != "category" and column.missing == "indicator" and column.fill != known.fill:
                indicator = column.encoded_names[-1]
                if indicator in used:
                    assert isinstance(column.fill, float | int)
                    assert isinstance(known.fill, float | int)
                    change = float(known.fill - column.fill)
                    statistics = refilled(statistics, columns.index(column.name), columns.index(indicator), change)
        index = {name: place for place, name in enumerate(self.columns)}
        places = np.array([index[name] for name in columns], dtype=np.intp)
        if tuple(columns) != self.columns:
            statistics = spread(statistics, places, len(self.columns))
        order = np.array([version.targets.index(name) for name in self.targets], dtype=np.intp)
        return with_targets(statistics, order)

    def _has(self, name: str) -> bool:
        """Return True if the feature is a column of the model, or a term of its own."""
        return not self.terms or name in self.terms


def _with_reference(
    statistics: SufficientStatistics, columns: list[str], column: Column, reference: str
) -> SufficientStatistics:
    """Return the statistics with another reference level of a category, and change the names of the columns."""
    wanted = f"{column.name}[{reference}]"
    if wanted not in columns:
        statistics = spread(statistics, np.arange(len(columns), dtype=np.intp), len(columns) + 1)
        columns.append(wanted)
    names = list(dict.fromkeys([*column.encoded_names, wanted]))
    block = np.array([columns.index(name) for name in names], dtype=np.intp)
    statistics = rebased(statistics, block, names.index(wanted))
    columns[columns.index(wanted)] = f"{column.name}[{column.levels[0]}]"
    return statistics


def _united(ours: Column, theirs: Column) -> Column:
    """Return our column with the levels and the constant of theirs."""
    known = set(ours.levels)
    column = replace(ours, levels=(*ours.levels, *sorted(level for level in theirs.levels if level not in known)))
    if theirs.missing in _REPLACED and ours.missing not in _REPLACED:
        return replace(column, missing=theirs.missing, fill=theirs.fill)
    return column


def _listed(terms: Sequence[str]) -> str:
    return listed(terms) if terms else "the features"
