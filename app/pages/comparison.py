"""Differences between two to four versions of a model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from app.data.columns.schema import Column
from app.data.names import listed, shown
from app.pages.formatting import age, number
from app.registry.model_card import ModelCard
from app.registry.version_file import Version
from app.regression.coefficient_changes import Coefficients, change_in_standard_errors, coefficients
from app.web.model_view import solver_of

MAX_COEFFICIENTS = 200  # Coefficients of one target on a page.
MAX_TARGETS = 20  # Targets whose metrics are on a page.


@dataclass(frozen=True)
class Fact:
    """One property of each version."""

    label: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


@dataclass(frozen=True)
class Estimate:
    """A coefficient in one version, and its change since the base version. None if there is none."""

    value: float | None = None
    standard_error: float | None = None
    change: float | None = None
    in_standard_errors: float | None = None
    note: str | None = None  # the reason if the change is withheld


@dataclass(frozen=True)
class CoefficientRow:
    name: str
    estimates: tuple[Estimate, ...]

    @property
    def largest(self) -> float:
        """The largest change in standard errors; infinite for a coefficient that not all versions have."""
        changes = [abs(each.in_standard_errors) for each in self.estimates if each.in_standard_errors is not None]
        return math.inf if any(each.value is None for each in self.estimates) else max(changes, default=0.0)


@dataclass(frozen=True)
class CoefficientTable:
    """The coefficients of one target, those that changed most first."""

    rows: tuple[CoefficientRow, ...]
    count: int


@dataclass(frozen=True)
class MetricRow:
    target: str
    label: str
    values: tuple[float | None, ...]


def facts(versions: Sequence[Version], current: int | None) -> list[Fact]:
    """Return the properties of the versions that are not about columns."""
    cards = [version.card for version in versions]

    def fact(label: str, of: Callable[[ModelCard], object]) -> Fact:
        return Fact(label, tuple(_text(of(card)) for card in cards))

    known = [
        fact("Current", lambda card: card.version == current),
        fact("Created", lambda card: age(card.created_at)),
        fact("Made from version", lambda card: card.parent),
        fact("Effect of its rows", lambda card: "none: imported" if card.imported else card.mode),
        fact("Rows", lambda card: card.rows or "not known"),
        fact("Rows left out", lambda card: card.dropped_rows if card.imported is None else "not known"),
        fact("Weights", _weights),
        fact("Decay", lambda card: card.discounted),
        fact("Features", lambda card: len(card.features)),
        fact("Terms", lambda card: len(card.terms)),
        fact("Coefficients of each target", lambda card: len(card.columns)),
        fact("Rank", lambda card: card.rank or "not known"),
        fact("Condition number", lambda card: card.condition_number or "not known"),
        fact("Inference", lambda card: card.inference_unavailable or "available"),
    ]
    records = [solver_of(card) for card in cards]
    names = list(dict.fromkeys(name for record in records for name in record))
    solvers = [
        Fact("Solver" if name == "kind" else f"Solver: {name}", tuple(_text(record.get(name)) for record in records))
        for name in ("kind", *(name for name in names if name != "kind"))
    ]
    return [*known, *(each for each in solvers if each.label == "Solver" or each.differs)]


def _weights(card: ModelCard) -> str:
    if card.imported is not None and not card.has_rows:
        return "not known"
    return card.weight_kind if card.schema_of_rows.weight else "none"


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, Markup):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    return str(value).replace("_", " ") if isinstance(value, str) else str(value)


def schema_changes(base: Version, other: Version) -> list[str]:
    """Return sentences about the columns that `other` has, compared with `base`."""
    before, now = base.table, other.table
    changes: list[str] = []
    for role, old, new in (("feature", before.features, now.features), ("target", before.targets, now.targets)):
        old_names, new_names = [column.name for column in old], [column.name for column in new]
        for words, names in (("added", _without(new_names, old_names)), ("removed", _without(old_names, new_names))):
            if names:
                changes.append(f"{_plural(len(names), role)} {words}: {listed(names)}.")
    known = {column.name: column for column in before.features}
    for column in now.features:
        if column.name in known:
            changes += _column_changes(known[column.name], column)
    if base.card.terms != other.card.terms:
        changes.append("The terms differ: the columns are made from the features in another way.")
    return changes


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    excluded = {*others}
    return [name for name in names if name not in excluded]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _column_changes(before: Column, now: Column) -> list[str]:
    name = shown(now.name)
    if before.kind != now.kind:
        return [f"{name} was a {before.kind} and is a {now.kind}."]
    changes = []
    if now.kind == "category":
        for words, levels in (
            ("has new levels", _without(now.levels, before.levels)),
            ("lacks levels", _without(before.levels, now.levels)),
        ):
            if levels:
                changes.append(f"{name} {words}: {listed(levels)}.")
        if before.levels[:1] != now.levels[:1]:
            levels = [listed(column.levels[:1]) or "none" for column in (before, now)]
            changes.append(f"The reference level of {name} was {levels[0]} and is {levels[1]}.")
    if before.missing != now.missing:
        changes.append(f"Gaps in {name} were read as `{before.missing}` and are read as `{now.missing}`.")
    return changes


def metric_rows(versions: Sequence[Version]) -> list[MetricRow]:
    """Return the metrics of the training rows and of the cross-validation, for up to MAX_TARGETS targets."""
    targets = list(dict.fromkeys(target for version in versions for target in version.card.targets))
    rows = []
    for target in targets[:MAX_TARGETS]:
        for label, path in (
            ("R² of the training rows", (target, "r2")),
            ("Adjusted R²", (target, "adjusted_r2")),
            ("RMSE of the training rows", (target, "rmse")),
            ("R², cross-validated", ("cross_validation", target, "r2")),
            ("RMSE, cross-validated", ("cross_validation", target, "rmse")),
        ):
            values = tuple(_at(version.card.metrics, path) for version in versions)
            if any(value is not None for value in values):
                rows.append(MetricRow(target, label, values))
    return rows


def _at(metrics: dict[str, Any], path: Sequence[str]) -> float | None:
    value: Any = metrics
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, float) else None


def coefficient_table(versions: Sequence[Version], target: str) -> CoefficientTable:
    """Return the coefficients of a target in all versions, with their changes since the first version.

    At most MAX_COEFFICIENTS are listed, those that changed most.
    """
    found = [
        dict(_estimates(coefficients(version.model, target), version)) if target in version.card.targets else {}
        for version in versions
    ]
    names = dict.fromkeys(name for estimates in found for name in estimates)
    notes = [_references(versions[0], version) for version in versions]
    rows = [CoefficientRow(name, tuple(_compared(name, found, notes))) for name in names]
    rows.sort(key=lambda row: -row.largest)
    return CoefficientTable(tuple(rows[:MAX_COEFFICIENTS]), len(rows))


def _estimates(found: Coefficients, version: Version) -> list[tuple[str, tuple[float, float]]]:
    skipped = not version.model.has_intercept
    names = ["intercept", *version.model.columns][skipped:]
    values, errors = found.values[skipped:].tolist(), found.standard_errors[skipped:].tolist()
    return list(zip(names, zip(values, errors, strict=True), strict=True))


def _references(base: Version, other: Version) -> frozenset[str]:
    """Return the names of the columns that mean something else, because a category has another reference level."""
    before = {column.name: column for column in base.table.features if column.kind == "category"}
    changed = [
        column
        for column in other.table.features
        if column.name in before and column.levels[:1] != before[column.name].levels[:1]
    ]
    names = frozenset(name for column in changed for name in column.encoded_names)
    return names | {"intercept"} if names or changed else names


def _compared(
    name: str, found: Sequence[dict[str, tuple[float, float]]], notes: Sequence[frozenset[str]]
) -> list[Estimate]:
    base = found[0].get(name)
    estimates = []
    for index, (values, changed) in enumerate(zip(found, notes, strict=True)):
        if (own := values.get(name)) is None:
            estimates.append(Estimate())
            continue
        value, error = own
        known = Estimate(value, error if math.isfinite(error) else None)
        if index == 0 or base is None:
            estimates.append(known)
        elif name in changed:
            estimates.append(Estimate(known.value, known.standard_error, note="other reference level"))
        else:
            change, ratio = change_in_standard_errors(base, own)
            in_errors = ratio if math.isfinite(ratio) else None
            estimates.append(Estimate(known.value, known.standard_error, change, in_errors))
    return estimates
