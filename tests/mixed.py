"""Versions with words, booleans and dates, trained in memory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from trained import model_of, version_of

from app.data.columns.encoder import Encoder
from app.data.columns.schema import Column, TableSchema
from app.data.columns.terms import encoded_terms
from app.registry.folder.publisher import FolderPublisher
from app.registry.version_file import Version
from app.regression.terms import expand, parse_terms

FEATURES = (
    Column("species", "category", levels=("Adelie", "Chinstrap", "Gentoo")),
    Column("age"),
    Column("wild", "boolean"),
    Column("island", "category", levels=("Biscoe", "Dream", "Torgersen")),
    Column("seen", "date"),
)
TABLE = TableSchema(FEATURES, (Column("mass"),))


def rows_of(features: Sequence[Column], count: int, seed: int = 0) -> dict[str, list[Any]]:
    """Return random values of columns, as JSON has them."""
    random = np.random.default_rng(seed)
    return {column.name: _values_of(column, count, random) for column in features}


def _values_of(column: Column, count: int, random: np.random.Generator) -> list[Any]:
    if column.kind == "category":
        return list(random.choice(column.levels, count).tolist())
    if column.kind == "boolean":
        return list((random.random(count) < 0.5).tolist())
    if column.kind == "date":
        return [str(np.datetime64("2007-11-09") + day) for day in random.integers(0, 900, count).tolist()]
    return list(random.normal(40, 5, count).round(1).tolist())


def encoded(features: Sequence[Column], rows: dict[str, list[Any]]) -> Any:
    """Return the matrix of the design for rows, as a file's cells give it."""
    cells = pa.RecordBatch.from_arrays([pa.array(rows[column.name]) for column in features], names=[*rows])
    return Encoder(features).encode(cells, 1)


def version_of_table(
    table: TableSchema = TABLE, rows: int = 60, terms: Sequence[str] = (), gaps: int = 0, **card: Any
) -> Version:
    """Return a version whose targets depend on random rows of the table's features, each with this number of gaps."""
    random = np.random.default_rng(1)
    given, names = rows_of(table.features, rows), encoded_terms(terms, table)
    for column in given.values():
        for row in random.choice(rows, gaps, replace=False):
            column[row] = None
    x = encoded(table.features, given)
    columns = expand(x, parse_terms(names, table.encoded_features)) if terms else x
    y = (columns - columns.mean(axis=0)) @ random.normal(size=(columns.shape[1], len(table.targets)))
    y += random.normal(size=y.shape)
    targets = tuple(column.name for column in table.targets)
    model = replace(model_of(columns, y), features=table.encoded_features, targets=targets, terms=names)
    own: dict[str, Any] = {
        "features": tuple(column.name for column in table.features),
        "table": table,
        "terms": tuple(terms),
    }
    return version_of(model, **(own | card))


def publish(models: Path, version: Version, model: str) -> None:
    """Publish a version as the current one of a model."""
    FolderPublisher(models).publish(replace(version.card, model=model), version.model, promote=True)
