"""Every export, run where its user runs it, predicts what `/predict` predicts, for every row of real tables.

tests/tables/real/NOTICE.md has the sources of the tables. The rows also have gaps and levels that the model does not
know. A prediction may differ by 1e-12 times the larger of itself and the training range of its target.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from export_runs import (
    Array,
    as_array,
    predictions_of_duckdb,
    predictions_of_postgres,
    predictions_of_python,
    predictions_of_sqlite,
    predictions_of_torch,
    predictions_of_workbook,
    predictions_transpiled,
)
from exported import served
from onnx_run import predictions_of_onnx
from pmml_evaluator import predictions_of_pmml
from postgres import Postgres
from service import Service
from shown_models import mixed

from app.exchange.base import Import
from app.exchange.json_reader import JsonImport
from app.exchange.onnx.reader import OnnxImport
from app.exchange.pmml.reader import PmmlImport
from app.exchange.publishing import to_version
from app.exchange.version_reader import VersionImport
from app.registry.origin import Imported
from app.registry.version_file import FileContent, Version, read

FOLDER = Path(__file__).parents[1] / "tables" / "real"
MAX_ERROR = 1e-12
MAX_WORKBOOK_ROWS = 20  # Rows that a test of `make test` computes in a workbook. The slow tests compute all.


@dataclass(frozen=True)
class Model:
    """A trained version, its rows and what the service predicts for them."""

    name: str
    version: Version
    rows: list[dict[str, Any]]
    expected: Array
    ranges: Array  # of the targets in training


@dataclass(frozen=True)
class Table:
    """A real table, and how it is trained."""

    file: str
    target: str
    booleans: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    def train(self, service: Service, model: str) -> tuple[list[dict[str, Any]], Array]:
        headers = {"content-type": "text/csv", "prefer": "wait=60"}
        params = {"model": model, "targets": self.target, **self.options}
        answer = service.client.post(
            "/train", params=params, content=(FOLDER / self.file).read_bytes(), headers=headers
        )
        assert service.ended_job(answer)["status"] == "succeeded", answer.text
        frame = pd.read_csv(FOLDER / self.file, keep_default_na=False, na_values=["", "NA"])
        for name in self.booleans:
            frame[name] = frame[name].map({"yes": True, "no": False})
        rows = json.loads(frame.to_json(orient="records"))
        return rows, frame[[self.target]].to_numpy(float)


def train_mixed(service: Service, model: str) -> tuple[list[dict[str, Any]], Array]:
    """Train a model with hostile names and levels, an indicator of gaps, a boolean, a date and two targets."""
    body = mixed(np.random.default_rng(7)) | {"model": model}
    return trained(service, body)


def train_curved(service: Service, model: str) -> tuple[list[dict[str, Any]], Array]:
    """Train a model with terms, over columns with a filled gap."""
    rng = np.random.default_rng(3)
    rows = [
        {"x": a, "select": b, "kind": "even" if index % 2 else "odd"}
        for index, (a, b) in enumerate(rng.normal(5, 2, (60, 2)).tolist())
    ]
    rows[7]["select"] = None
    targets = [{"y": 3 + row["x"] ** 3 + row["x"] * (row["select"] or 1.0) + rng.normal()} for row in rows]
    terms = ["x", "x^3", "x:select", "kind"]
    columns = {"select": {"missing": "fill", "fill": 5.0}}
    return trained(service, {"model": model, "instances": rows, "targets": targets, "terms": terms, "columns": columns})


def train_far(service: Service, model: str) -> tuple[list[dict[str, Any]], Array]:
    """Train a model whose columns are far from 0, so that predictions subtract a centre first."""
    rng = np.random.default_rng(5)
    x = 1e9 + rng.normal(0, 1, (50, 2))
    rows = [{"a": a, "b": b} for a, b in x.tolist()]
    targets = [{"y": a - b + rng.normal(0, 1e-3)} for a, b in x.tolist()]
    return trained(service, {"model": model, "instances": rows, "targets": targets})


def trained(service: Service, body: dict[str, Any]) -> tuple[list[dict[str, Any]], Array]:
    job = service.train(**body)
    assert job["status"] == "succeeded", job
    targets = body["targets"]
    return [dict(row) for row in body["instances"]], np.array([list(row.values()) for row in targets], dtype=float)


MODELS: Mapping[str, Callable[[Service, str], tuple[list[dict[str, Any]], Array]]] = {
    "penguins": Table("penguins.csv", "body_mass_g", options={"missing": "indicator"}).train,
    "mroz": Table("mroz.csv", "lwg", booleans=("lfp", "wc", "hc")).train,
    "weather": Table("seattle-weather.csv", "temp_max").train,
    "mixed": train_mixed,
    "curved": train_curved,
    "far": train_far,
}
SLOW = ("mroz", "weather")  # tables that `make test-slow` runs; the other models have all that they have
EACH = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MODELS]
NOT_CENTRED = pytest.mark.xfail(strict=True, reason="nn.Linear subtracts no centre, and the export says so")


@pytest.fixture(scope="module")
def models(publishing: Service) -> Callable[[str], Model]:
    """Return a function that trains a model once, and asks for its predictions."""
    made: dict[str, Model] = {}

    def model(name: str) -> Model:
        if name not in made:
            made[name] = _made(publishing, name)
        return made[name]

    return model


def _made(service: Service, name: str) -> Model:
    rows, targets = MODELS[name](service, f"export-{name}")
    content = _export(service, name, format="linserve")
    version = read(FileContent(content, name))
    features = version.table.features
    rows = [{column.name: row[column.name] for column in features} for row in rows]
    for column in features:
        rows.append(rows[0] | {column.name: None})
        if column.kind == "category":
            rows.append(rows[0] | {column.name: "no such level"})
    body = {"instances": rows, "missing": "null", "unknown": "null"}
    answer = service.client.post(f"/models/export-{name}/predict", json=body)
    assert answer.status_code == 200, answer.text
    none = dict.fromkeys(version.card.targets)
    found = [list((row or none).values()) for row in answer.json()["predictions"]]
    ranges = np.nanmax(targets, axis=0) - np.nanmin(targets, axis=0)
    return Model(name, version, rows, as_array(found, len(version.card.targets)), ranges)


def _export(service: Service, name: str, **query: str) -> bytes:
    answer = service.client.get(f"/models/export-{name}/export", params=query)
    assert answer.status_code == 200, answer.text
    return answer.content


def check(model: Model, found: Array) -> None:
    assert found.shape == model.expected.shape
    missing = np.isnan(model.expected)
    assert (np.isnan(found) == missing).all()
    assert missing.any()
    allowed = MAX_ERROR * np.maximum(np.abs(model.expected), model.ranges)
    assert (missing | (np.abs(found - model.expected) <= allowed)).all(), np.nanmax(
        np.abs(found - model.expected) / allowed * MAX_ERROR
    )


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize(
    ("dialect", "run"),
    [
        pytest.param("duckdb", predictions_of_duckdb, id="duckdb"),
        pytest.param("sqlite", predictions_of_sqlite, id="sqlite"),
        # These two databases do not run here: sqlglot reads the statement in their dialect, and DuckDB runs it.
        pytest.param(
            "bigquery", partial(predictions_transpiled, dialect="bigquery"), marks=pytest.mark.slow, id="bigquery"
        ),
        pytest.param(
            "snowflake", partial(predictions_transpiled, dialect="snowflake"), marks=pytest.mark.slow, id="snowflake"
        ),
    ],
)
def test_sql_predicts_what_the_service_predicts(
    publishing: Service, models: Callable[[str], Model], name: str, dialect: str, run: Callable[..., Array]
) -> None:
    model = models(name)
    if dialect == "bigquery" and name == "mixed":
        pytest.skip("BigQuery has no columns with such names, which test_sql_export.py shows")
    check(model, run(_export(publishing, name, format="sql", dialect=dialect), model.version, model.rows))


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_sql_predicts_in_postgres_what_the_service_predicts(
    publishing: Service, models: Callable[[str], Model], name: str, postgres: Postgres
) -> None:
    model = models(name)
    content = _export(publishing, name, format="sql", dialect="postgres")
    check(model, predictions_of_postgres(content, model.version, model.rows, postgres.new_database()))


@pytest.mark.parametrize("name", EACH)
def test_python_predicts_what_the_service_predicts(
    publishing: Service, models: Callable[[str], Model], name: str, tmp_path: Path
) -> None:
    model = models(name)
    content = _export(publishing, name, format="python")
    check(model, predictions_of_python(content, model.version, model.rows, tmp_path))


@pytest.mark.slow  # Torch takes seconds to load.
@pytest.mark.parametrize("name", [*[*MODELS][:-1], pytest.param("far", marks=NOT_CENTRED)])
def test_torch_predicts_what_the_service_predicts(
    publishing: Service, models: Callable[[str], Model], name: str
) -> None:
    model = models(name)
    content = _export(publishing, name, format="safetensors")
    check(model, predictions_of_torch(content, model.version, model.rows))


@pytest.mark.parametrize("name", EACH)
def test_onnx_predicts_what_the_service_predicts(
    publishing: Service, models: Callable[[str], Model], name: str
) -> None:
    model = models(name)
    booleans = [column.name for column in model.version.table.features if column.kind == "boolean"]
    # A tensor of booleans has no gaps, as the export says.
    complete = np.array([all(row[name] is not None for name in booleans) for row in model.rows])
    rows = [row for row, is_complete in zip(model.rows, complete, strict=True) if is_complete]
    found = predictions_of_onnx(_export(publishing, name, format="onnx"), model.version, rows)
    check(replace(model, rows=rows, expected=model.expected[complete]), found)


@pytest.mark.parametrize("name", EACH)
def test_pmml_predicts_what_the_service_predicts(
    publishing: Service, models: Callable[[str], Model], name: str
) -> None:
    model = models(name)
    check(model, predictions_of_pmml(_export(publishing, name, format="pmml"), model.version, model.rows))


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize(("export", "reader"), [("onnx", OnnxImport()), ("pmml", PmmlImport())])
def test_an_import_of_a_graph_or_of_pmml_predicts_the_same(
    publishing: Service, models: Callable[[str], Model], name: str, export: str, reader: Import
) -> None:
    model = models(name)
    again = to_version(
        reader.read(_export(publishing, name, format=export), {}), "again", Imported(export, "coefficients")
    )
    check(model, served(again, model.rows))


@pytest.mark.parametrize(
    ("name", "every"),
    [("mixed", False), *(pytest.param(name, True, marks=pytest.mark.slow) for name in MODELS)],
)
def test_a_workbook_predicts_what_the_service_predicts(
    publishing: Service, models: Callable[[str], Model], name: str, tmp_path: Path, every: bool
) -> None:
    model = models(name)
    part = slice(None if every else -MAX_WORKBOOK_ROWS, None)
    content = _export(publishing, name, format="xlsx")
    found = predictions_of_workbook(content, model.version, model.rows[part], tmp_path)
    check(replace(model, rows=model.rows[part], expected=model.expected[part]), found)


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize(("export", "reader"), [("json", JsonImport()), ("linserve", VersionImport())])
def test_an_import_of_an_export_has_the_same_numbers(
    publishing: Service, models: Callable[[str], Model], name: str, export: str, reader: Import
) -> None:
    model = models(name)
    found = reader.read(_export(publishing, name, format=export), {})
    again = to_version(found, "again", Imported(export, "coefficients"))
    np.testing.assert_array_equal(served(again, model.rows), model.expected)
    assert again.table.features == model.version.table.features
    assert again.card.inference_unavailable == model.version.card.inference_unavailable
    old, new = model.version.model.statistics, again.model.statistics
    for tensor in fields(old):
        np.testing.assert_array_equal(getattr(new, tensor.name), getattr(old, tensor.name), err_msg=tensor.name)
    np.testing.assert_allclose(again.model.residual_norms, model.version.model.residual_norms, rtol=1e-9)
