"""Real tables train as they come, and the same file is sent to /predict. tests/tables/real/NOTICE.md has their sources.

The expected design is made by pandas, with a recipe for each table. The solution by the SVD is also right if columns
depend on each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from service import Service

FOLDER = Path(__file__).parents[1] / "tables" / "real"
EPOCH = pd.Timestamp("1970-01-01")
MAX_ERROR = 1e-9  # of a prediction, in residual standard deviations


@dataclass(frozen=True)
class Table:
    """A file, and what training must make of it."""

    file: str
    target: str
    rows: int  # without gaps
    left_out: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    booleans: tuple[str, ...] = ()
    separator: str = ","
    options: Mapping[str, str] = field(default_factory=dict)


TABLES = [
    Table("penguins.csv", "body_mass_g", 333),
    Table("penguins-raw.csv", "Body Mass (g)", 34, ("Individual ID",), ("Date Egg",), ("Clutch Completion",)),
    Table(
        "penguins-raw.csv",
        "Body Mass (g)",
        324,
        ("Individual ID", "Comments"),
        ("Date Egg",),
        ("Clutch Completion",),
        options={"drop": "Comments"},
    ),
    Table("statecrime.csv", "murder", 51, ("state",)),
    Table("grunfeld.csv", "invest", 220),
    Table("modechoice.csv", "gc", 840, separator=";"),
    Table("mpg.csv", "hwy", 234),
    Table("mtcars.csv", "mpg", 32, ("name",)),
    Table("economics.csv", "unemploy", 574, dates=("date",)),
    Table("stocks.csv", "price", 560, dates=("date",)),
    Table("seattle-weather.csv", "temp_max", 1461, dates=("date",)),
    Table("barley.json", "yield", 120),
    Table("mroz.csv", "lwg", 753, ("Unnamed: 0",), booleans=("lfp", "wc", "hc")),
    Table("organ-donation.csv", "Rate", 162),
]


def design_of(table: Table) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return the columns of the design, NaN for gaps, and the target."""
    path = FOLDER / table.file
    if path.suffix == ".json":
        frame = pd.read_json(path)
    else:
        frame = pd.read_csv(path, sep=table.separator, keep_default_na=False, na_values=["", "NA"])
    columns = []
    for name in frame.columns.drop([table.target, *table.left_out]):
        column = frame[name]
        if name in table.dates:
            columns.append(((pd.to_datetime(column) - EPOCH) / pd.Timedelta(days=1)).rename(name))
        elif name in table.booleans:
            columns.append(column.str.lower().map({"yes": 1.0, "no": 0.0}).rename(name))
        elif pd.api.types.is_numeric_dtype(column):
            columns.append(column.astype(float))
        else:
            levels = sorted(column.dropna().unique())
            columns += [
                (column == level).astype(float).where(column.notna()).rename(f"{name}[{level}]") for level in levels[1:]
            ]
    return pd.concat(columns, axis=1), frame[table.target].to_numpy(float)


def solution(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return the fitted values, and the coefficients if the columns are independent."""
    mean = x.mean(axis=0)
    scale = np.where((norm := np.linalg.norm(x - mean, axis=0)) > 0, norm, 1)
    u, s, vt = np.linalg.svd((x - mean) / scale, full_matrices=False)
    rank = int(np.sum(s > 1e-10 * s[0]))
    along = u[:, :rank].T @ (y - y.mean())
    fitted = y.mean() + u[:, :rank] @ along
    return fitted, (vt.T @ (along / s)) / scale if rank == x.shape[1] else None


def post(service: Service, path: str, table: Table, **params: str) -> dict[str, Any]:
    media_type = "application/json" if table.file.endswith(".json") else "text/csv"
    headers = {"content-type": media_type, "accept": "application/json", "prefer": "wait=60"}
    content = (FOLDER / table.file).read_bytes()
    answer = service.client.post(path, params=params, content=content, headers=headers)
    if path == "/train":
        return service.ended_job(answer)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("table", TABLES, ids=lambda table: " ".join([table.file, *table.options.values()]))
def test_a_real_table_trains_as_it_comes_and_predicts_back(service: Service, table: Table) -> None:
    model = f"real-{TABLES.index(table)}"
    job = post(service, "/train", table, model=model, targets=table.target, **table.options)
    assert job["status"] == "succeeded", job
    card = service.client.get(f"/models/{model}").json()
    assert card["rows"] == table.rows
    expected_columns = ["" if name == "Unnamed: 0" else name for name in table.left_out]
    assert sorted(card["unused_columns"]) == sorted(expected_columns)

    columns, y = design_of(table)
    x = columns.to_numpy()
    complete = ~np.isnan(x).any(axis=1)
    used = complete & ~np.isnan(y)
    fitted, coefficients = solution(x[used], y[used])
    spread = np.sqrt(np.mean((y[used] - fitted) ** 2))

    rows = post(service, f"/models/{model}/predict", table)["predictions"]
    predicted = np.array([row[table.target] if row and row[table.target] is not None else np.nan for row in rows])
    assert len(predicted) == len(y)
    assert (np.isnan(predicted) == ~complete).all()
    assert np.abs(predicted[used] - fitted).max() <= MAX_ERROR * spread
    if coefficients is not None:
        found = card["coefficients"][table.target]
        assert found == pytest.approx(dict(zip(columns, coefficients, strict=True)), rel=1e-8)
