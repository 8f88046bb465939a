"""Versions and rows for tests of exports, and the predictions that the service gives for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mixed import rows_of, version_of_table
from numpy.typing import NDArray
from trained import model_of
from trained import version_of as version_of_model

from app.data.columns.schema import Column, TableSchema
from app.prediction.predictor import Predictor
from app.prediction.query import PredictionOptions, PredictionQuery
from app.registry.version_file import Version

Array = NDArray[np.float64]

SPECIES = ("Adelie", "Chinstrap", "Gentoo")
_MASS = (Column("mass"),)
# Tables that have every kind of column with every way to treat its gaps, and terms.
TABLES: Mapping[str, tuple[TableSchema, tuple[str, ...]]] = {
    "numbers": (TableSchema((Column("a"), Column("b")), (Column("mass"), Column("size"))), ()),
    "every kind": (
        TableSchema(
            (
                Column("species", "category", SPECIES),
                Column("age", missing="refuse"),
                Column("wild", "boolean"),
                Column("seen", "date"),
                Column("only", "category", ("one",)),
            ),
            _MASS,
        ),
        (),
    ),
    "filled gaps": (
        TableSchema(
            (
                Column("species", "category", SPECIES, "fill", "Gentoo"),
                Column("age", missing="fill", fill=41.5, na=("-999", "0")),
                Column("wild", "boolean", missing="fill", fill=1.0),
                Column("seen", "date", missing="fill", fill="2008-02-29"),
            ),
            _MASS,
        ),
        (),
    ),
    "indicators of gaps": (
        TableSchema(
            (
                Column("species", "category", SPECIES, "indicator", na=("?", "none")),
                Column("age", missing="indicator", fill=40.25),
                Column("wild", "boolean", missing="indicator", fill=0.0),
                Column("seen", "date", missing="indicator", fill=14000.5),
            ),
            _MASS,
        ),
        (),
    ),
    "terms": (
        TableSchema(
            (
                Column("species", "category", SPECIES, "fill", "Chinstrap"),
                Column("age", missing="indicator", fill=40.25),
                Column("weight", missing="fill", fill=38.0),
                Column("unused"),
            ),
            (Column("mass"), Column("size")),
        ),
        ("species", "age", "weight", "weight^2", "age:weight", "weight^2:age^3", "age:species[Gentoo]"),
    ),
}


def version_of(name: str, **card: Any) -> Version:
    """Return a version of one of the tables."""
    table, terms = TABLES[name]
    gaps = 6 if name in ("filled gaps", "indicators of gaps", "terms") else 0
    return version_of_table(table, 80, terms, gaps, **card)


FAR = np.array([1e9, -3e8, 2e7])


def centred_version() -> Version:
    """Return a version whose columns are so far from 0 that it subtracts their centre."""
    random = np.random.default_rng(5)
    x = random.normal(size=(50, 3)) + FAR
    y = (x - x.mean(axis=0)) @ random.normal(size=(3, 2)) + random.normal(size=(50, 2)) * 1e-3
    version = version_of_model(model_of(x, y))
    assert version.model.centre is not None
    return version


def rows_with_gaps(version: Version, count: int = 40, seed: int = 7) -> list[dict[str, Any]]:
    """Return rows, of which some have a gap, a mark of a gap or an unknown level."""
    features = version.table.features
    columns = rows_of(features, count, seed)
    for place, column in enumerate(features):
        if column.kind != "boolean" or column.missing in ("fill", "indicator"):
            columns[column.name][place] = None
        for offset, mark in enumerate(column.na, 10):
            columns[column.name][offset] = mark if column.kind == "category" else float(mark)
        if column.kind == "category":
            columns[column.name][20 + place] = "unknown"
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def served(version: Version, rows: Sequence[Mapping[str, Any]]) -> Array:
    """Return the predictions (n, k) of `/predict?missing=null&unknown=null`."""
    query = PredictionQuery([*map(dict, rows)], PredictionOptions(missing="null", unknown="null"))
    return Predictor(version).predict(query.with_rows(version.encoder)).predictions


def assert_as_served(
    found: Array, version: Version, rows: Sequence[Mapping[str, Any]], targets: int | None = None
) -> None:
    """Check predictions of the first targets to 1e-12 times the larger of a prediction and the target's range."""
    expected = served(version, rows)[:, :targets]
    assert found.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    allowed = 1e-12 * np.maximum(np.abs(expected), target_ranges(version)[:targets])
    assert (np.isnan(expected) | (np.abs(found - expected) <= allowed)).all()


def target_ranges(version: Version) -> Array:
    """Return two standard deviations of each target in training. Its range is at least as large."""
    statistics = version.model.statistics
    p = len(version.model.columns)
    deviations = np.sqrt((statistics.factor[1:, 1 + p :] ** 2).sum(axis=0)) * statistics.scale[p:]
    return np.asarray(2 * deviations / np.sqrt(statistics.total_weight))
