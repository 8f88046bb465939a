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
from app.registry.publisher import ModelPublisher
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
    start = np.datetime64("2007-11-09")
    return {
        column.name: {
            "category": lambda column=column: random.choice(column.levels, count).tolist(),
            "number": lambda: random.normal(40, 5, count).round(1).tolist(),
            "boolean": lambda: (random.random(count) < 0.5).tolist(),
            "date": lambda: [str(start + day) for day in random.integers(0, 900, count).tolist()],
        }[column.kind]()
        for column in features
    }


def encoded(features: Sequence[Column], rows: dict[str, list[Any]]) -> Any:
    """Return the matrix of the design for rows, as a file's cells give it."""
    cells = pa.RecordBatch.from_arrays([pa.array(rows[column.name]) for column in features], names=[*rows])
    return Encoder(features).encode(cells, 1)


def version_of_table(table: TableSchema = TABLE, rows: int = 60, terms: Sequence[str] = (), **card: Any) -> Version:
    """Return a version whose targets depend on random rows of the table's features."""
    random = np.random.default_rng(1)
    x, names = encoded(table.features, rows_of(table.features, rows)), encoded_terms(terms, table)
    columns = expand(x, parse_terms(names, table.encoded_features)) if terms else x
    y = (columns - columns.mean(axis=0)) @ random.normal(size=(columns.shape[1], len(table.targets)))
    y += random.normal(size=y.shape)
    targets = tuple(column.name for column in table.targets)
    model = replace(model_of(columns, y), features=table.encoded_features, targets=targets, terms=names)
    own = {"features": tuple(column.name for column in table.features), "table": table, "terms": tuple(terms)}
    return version_of(model, **(own | card))


def publish(models: Path, version: Version, model: str) -> None:
    """Publish a version as the current one of a model."""
    ModelPublisher(models).publish(replace(version.card, model=model), version.model, promote=True)
