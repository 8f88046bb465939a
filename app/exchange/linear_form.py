"""A model as a sum of parts that a program can write out: products of cells, and one value for each level."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from app.data.columns.booleans import boolean_of
from app.data.columns.dates import date_of
from app.data.columns.gaps import gap_texts, numeric_gaps
from app.data.columns.numbers import number_of
from app.data.columns.schema import Column
from app.data.columns.terms import encoded_terms
from app.exchange.portable import PortableModel
from app.regression.sufficient_statistics import Array
from app.regression.terms import parse_terms

_OF_VALUE = {"number": number_of, "boolean": boolean_of, "date": date_of}


@dataclass(frozen=True)
class Cell:
    """A column of the design: a feature's number, 1 or 0 for one of its levels, or 1 or 0 for a gap."""

    feature: Column
    part: Literal["value", "level", "gap"] = "value"
    level: str = ""


@dataclass(frozen=True, eq=False)
class Product:
    """weights * (product of the cells' powers - centre)."""

    factors: tuple[tuple[Cell, int], ...]
    weights: Array  # (k,)
    centre: float = 0.0


@dataclass(frozen=True, eq=False)
class LevelSum:
    """The sum of the indicators of a category that are columns of their own: one value for each level."""

    feature: Column
    values: Array  # (levels, k), and another row for gaps if the category has an indicator of them


Part: TypeAlias = Product | LevelSum


@dataclass(frozen=True, eq=False)
class LinearForm:
    """Predicts start + the sum of the parts, in their order. Each feature is in at least one part.

    A row without a value that the model needs makes one of the parts NaN or null, as in a prediction with
    `missing=null` and `unknown=null`.
    """

    features: tuple[Column, ...]
    targets: tuple[str, ...]
    start: Array  # (k,)
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, model: PortableModel) -> "LinearForm":
        table = model.table
        start = model.intercept if model.centre is None or model.start is None else model.start
        return cls(table.features, model.targets, start, tuple(_parts(model)))

    @property
    def size(self) -> int:
        """Number of weights, for each target."""
        return sum(len(part.values) if isinstance(part, LevelSum) else 1 for part in self.parts)


def cells_of(column: Column) -> tuple[Cell, ...]:
    """Return the cells in the order of `column.encoded_names`."""
    gap = (Cell(column, "gap"),) if column.missing == "indicator" else ()
    if column.kind != "category":
        return (Cell(column), *gap)
    return (*(Cell(column, "level", level) for level in column.levels[1:]), *gap)


def _parts(model: PortableModel) -> Iterator[Part]:
    table, used = model.table, set()
    cells = [cell for column in table.features for cell in cells_of(column)]
    centre = np.zeros(model.coef.shape[1]) if model.centre is None else model.centre
    categories = {column.name: column for column in table.features if column.kind == "category"}
    names = {column.name: column for column in table.features}
    index = 0
    for term in model.terms or names:
        if term in names:
            width = len(names[term].encoded_names)
            columns = slice(index, index + width)
            used.add(term)
            if term in categories:
                yield LevelSum(names[term], _level_values(names[term], model.coef[:, columns], centre[columns]))
            else:
                for place, cell in enumerate(cells_of(names[term]), index):
                    yield Product(((cell, 1),), model.coef[:, place], float(centre[place]))
            index += width
            continue
        ((factors,), place) = (parse_terms(encoded_terms((term,), table), table.encoded_features), index)
        yield Product(
            tuple((cells[cell], power) for cell, power in factors), model.coef[:, place], float(centre[place])
        )
        used.update(cells[cell].feature.name for cell, _ in factors)
        index += 1
    none = np.zeros(len(model.targets))
    for column in table.features:
        if column.name not in used:  # A gap in it still makes the prediction null.
            if column.kind == "category":
                rows = len(column.levels) + (column.missing == "indicator")
                yield LevelSum(column, np.zeros((rows, len(none))))
            else:
                yield Product(((Cell(column), 1),), none)


def _level_values(column: Column, coef: Array, centre: Array) -> Array:
    """Return the value of each level for each target: coef (indicators - centre), with coef (k, indicators)."""
    levels = len(column.levels) + (column.missing == "indicator")
    indicators = np.zeros((levels, coef.shape[1]))
    indicators[1:] = np.eye(coef.shape[1])
    return (indicators - centre) @ coef.T


def fill_of(column: Column) -> float | None:
    """Return the number in place of a gap of a number, boolean or date, or None if a gap makes the prediction null."""
    if column.missing not in ("fill", "indicator") or column.fill is None:
        return None
    return _OF_VALUE[column.kind](column.fill, column) if isinstance(column.fill, str) else column.fill


def level_index_of_gap(column: Column) -> int | None:
    """Return the row of `LevelSum.values` for a gap of a category, or None if a gap makes the prediction null."""
    if column.missing == "indicator":
        return len(column.levels)
    return column.levels.index(str(column.fill)) if column.missing == "fill" and column.fill in column.levels else None


def marks_of_gaps(column: Column) -> tuple[str, ...]:
    """Return the texts that mark a gap of a category, in addition to an empty one."""
    return tuple(sorted(gap_texts(column) - {"", *column.levels}))


def numbers_of_gaps(column: Column) -> tuple[float, ...]:
    """Return the numbers that mark a gap, such as -999."""
    return numeric_gaps(column.na)
