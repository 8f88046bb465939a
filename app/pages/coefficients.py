"""The coefficients of a version: a table and a forest plot for each target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from markupsafe import Markup

from app.pages.charts.forest import Estimate, forest
from app.pages.withheld import Notes
from app.registry.version_file import Version
from app.regression.sufficient_statistics import Array, column_norms

Scale: TypeAlias = Literal["raw", "standardised"]

MAX_LISTED = 100  # Coefficients on a page of all.

_LABELS: dict[str, str] = {
    "raw": "Change of the prediction per unit of the column",
    "standardised": "Change of the prediction per standard deviation of the column",
}


@dataclass(frozen=True)
class Limits:
    """How much a page shows of each target's coefficients."""

    drawn: int  # coefficients in the plot, and in the table unless all are asked for
    categories: int  # with their tests and marginal means
    levels: int  # of a category, with their means


@dataclass(frozen=True)
class CoefficientTable:
    """The coefficients of one target, as a template shows them."""

    target: str
    plot: Markup | None
    rows: list[dict[str, Any]]
    tests: list[dict[str, Any]]  # of categories
    means: list[dict[str, Any]]  # marginal means by category


@dataclass(frozen=True)
class CoefficientList:
    """Which coefficients are listed, of all."""

    count: int
    drawn: int
    start: int
    end: int
    is_complete: bool
    next_start: int | None


def deviations(version: Version) -> Array:
    """Return the standard deviation of each column of the design in the training rows, (p,); 1 if it is not known."""
    if not version.model.has_statistics:
        return np.ones(len(version.model.columns))
    statistics = version.model.statistics
    p = statistics.features
    norms = column_norms(statistics.factor[1:, 1 : p + 1]) * statistics.scale[:p]
    return np.asarray(norms / np.sqrt(statistics.total_weight))


def coefficient_tables(
    version: Version, view: Mapping[str, Any], notes: Notes, scale: Scale, *, start: int | None, limits: Limits
) -> tuple[list[CoefficientTable], CoefficientList]:
    """Return a table for each target of the view, and which coefficients they have.

    Without `start`, they are the `limits.drawn` of the largest effects; otherwise MAX_LISTED from there on.
    """
    columns = version.model.columns
    factors = deviations(version) if scale == "standardised" else np.ones(len(columns))
    drawn = _largest(version, view, limits.drawn)
    if start is None:
        kept, end = drawn, len(drawn)
    else:
        kept = list(range(len(columns)))[start : start + MAX_LISTED]
        end = start + len(kept)
    listed = CoefficientList(
        len(columns),
        len(drawn),
        start or 0,
        end,
        len(kept) == len(columns),
        end if start is not None and end < len(columns) else None,
    )
    tables = [
        CoefficientTable(
            target,
            _plot(target, [columns[index] for index in drawn], [float(factors[index]) for index in drawn], view, scale),
            _rows(target, [(columns[index], float(factors[index])) for index in kept], view, notes, first=not start),
            _tests(target, view, notes, limits),
            _means(target, view, notes, limits),
        )
        for target in version.card.targets
    ]
    return tables, listed


def _largest(version: Version, view: Mapping[str, Any], most: int) -> list[int]:
    """Return the places of the columns with the largest |t|, or else the largest effect, in any target."""
    columns = version.model.columns
    if len(columns) <= most:
        return list(range(len(columns)))
    if view["t_values"] is not None:
        values = view["t_values"].values()
        sizes = np.array([[by_name.get(name) or 0.0 for name in columns] for by_name in values])
    else:
        sizes = version.model.coef * deviations(version)
    with np.errstate(invalid="ignore"):
        strength = np.nan_to_num(np.abs(sizes).max(axis=0), posinf=np.finfo(float).max)
    return sorted(np.argsort(-strength, kind="stable")[:most].tolist())


def _plot(
    target: str, names: Sequence[str], factors: Sequence[float], view: Mapping[str, Any], scale: Scale
) -> Markup | None:
    if not names:
        return None
    intervals = (view["confidence_intervals"] or {}).get(target, {})
    estimates = []
    for name, factor in zip(names, factors, strict=True):
        bounds = intervals.get(name)
        lower, upper = (None, None) if bounds is None else (bounds[0] * factor, bounds[1] * factor)
        estimates.append(Estimate(name, view["coefficients"][target][name] * factor, lower, upper))
    return forest(estimates, f"Coefficients of {target} with {view['confidence_level']:.0%} intervals", _LABELS[scale])


def _rows(
    target: str, columns: Sequence[tuple[str, float]], view: Mapping[str, Any], notes: Notes, *, first: bool
) -> list[dict[str, Any]]:
    def of(field: str, name: str) -> Any:
        return ((view[field] or {}).get(target) or {}).get(name)

    def row(name: str, value: float, factor: float) -> dict[str, Any]:
        lower, upper = of("confidence_intervals", name) or (None, None)
        error = of("standard_errors", name)
        path = (target, name)
        return {
            "name": name,
            "is_intercept": name == "intercept",
            "coefficient": notes.cell(value * factor, "coefficients", *path),
            "error": notes.cell(_times(error, factor), "standard_errors", *path),
            "lower": notes.cell(_times(lower, factor), "confidence_intervals", *path),
            "upper": notes.cell(_times(upper, factor), "confidence_intervals", *path),
            "t": notes.cell(of("t_values", name), "t_values", *path),
            "p": notes.cell(of("p_values", name), "p_values", *path, digits=3),
        }

    rows = [row(name, view["coefficients"][target][name], factor) for name, factor in columns]
    if first and view["solver"].get("fit_intercept", True):
        rows.insert(0, row("intercept", view["intercept"][target], 1.0))
    return rows


def _tests(target: str, view: Mapping[str, Any], notes: Notes, limits: Limits) -> list[dict[str, Any]]:
    return [
        {
            "category": category,
            "f": notes.cell(test["f"], "category_tests", target, category),
            "p": notes.cell(test["p_value"], "category_tests", target, category, digits=3),
            "degrees": test["degrees_of_freedom"],
        }
        for category, test in ((view["category_tests"] or {}).get(target) or {}).items()
    ][: limits.categories]


def _means(target: str, view: Mapping[str, Any], notes: Notes, limits: Limits) -> list[dict[str, Any]]:
    found = []
    for category, levels in list(((view["marginal_means"] or {}).get(target) or {}).items())[: limits.categories]:
        path = ("marginal_means", target, category)
        rows = [
            {
                "level": level,
                "mean": notes.cell(mean["mean"], *path, level),
                "lower": notes.cell(mean["lower"], *path, level, "lower"),
                "upper": notes.cell(mean["upper"], *path, level, "upper"),
            }
            for level, mean in list(levels.items())[: limits.levels]
        ]
        found.append({"category": category, "rows": rows, "more": max(0, len(levels) - limits.levels)})
    return found


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
