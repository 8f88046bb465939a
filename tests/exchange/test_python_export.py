"""Programs of Python: every kind of column, hostile names, dates in every form, and wide models."""

import ast
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_runs import predictions_of_python
from exported import TABLES, assert_as_served, rows_with_gaps, served, version_of
from hypothesis import given, settings
from hypothesis import strategies as st

from app.data.columns.schema import Column, TableSchema
from app.errors import NotExportable
from app.exchange.imported import ImportedModel
from app.exchange.portable import PortableModel
from app.exchange.publishing import to_version
from app.exchange.python_writer import MAX_WEIGHTS, PythonExport
from app.registry.origin import Imported
from app.registry.version_file import Version


def program(version: Version) -> str:
    return PythonExport().write(version, {}).decode()


def function(version: Version) -> Any:
    names: dict[str, Any] = {}
    exec(program(version), names)  # noqa: S102 - the program is what is tested
    return names["predict"]


def of_coefficients(table: TableSchema, coef: np.ndarray) -> Version:
    model = PortableModel(table, coef, np.zeros(len(coef)))
    return to_version(ImportedModel(model), "model", Imported("json", "coefficients"))


@pytest.mark.parametrize("name", TABLES)
def test_every_kind_of_column_is_treated_as_the_service_treats_it(name: str, tmp_path: Path) -> None:
    version = version_of(name)
    rows = rows_with_gaps(version)
    assert_as_served(predictions_of_python(program(version).encode(), version, rows, tmp_path), version, rows)


def test_the_bits_of_a_prediction_are_those_of_the_service() -> None:
    version = version_of("numbers")
    predict = function(version)
    rows = rows_with_gaps(version)
    found = np.array([[np.nan if y is None else y for y in predict(row).values()] for row in rows])
    np.testing.assert_array_equal(found, served(version, rows))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
HOSTILE = TEXT | st.sampled_from(['"""', "\\", "'", '\\"""', "{x}", "\n", "row", "predict", "nan", "__import__('os')"])


@settings(max_examples=25)
@given(
    st.lists(HOSTILE.filter(str.isprintable), min_size=3, max_size=3, unique=True).filter(
        lambda names: "intercept" not in names
    ),
    st.lists(HOSTILE.filter(str.strip), min_size=2, max_size=4, unique=True),
)
def test_names_and_levels_cannot_leave_their_quotes(names: list[str], levels: list[str]) -> None:
    number, category, target = names[0], names[1], f"{names[2]}!"  # not a name that cards reserve
    schema = TableSchema((Column(number), Column(category, "category", tuple(levels))), (Column(target),))
    version = of_coefficients(schema, np.arange(1.0, len(levels) + 1)[np.newaxis])
    (about, defined) = ast.parse(program(version)).body
    assert isinstance(about, ast.Expr)
    assert isinstance(about.value, ast.Constant)
    assert isinstance(defined, ast.FunctionDef)
    called = {
        node.func.id for node in ast.walk(defined) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called <= {"float", "isinstance", "TypeError", "type", "level", "number", "str", "int"}
    rows = [{number: 2.0, category: level} for level in levels]
    expected = served(version, rows)
    for row, (prediction,) in zip(rows, expected.tolist(), strict=True):
        assert function(version)(row) == {target: None if np.isnan(prediction) else prediction}


@pytest.mark.parametrize(
    ("value", "days"),
    [
        ("1970-01-03", 2.0),
        ("1970-01-01T06:00:00Z", 0.25),
        ("1970-01-01 06:00:00", 0.25),
        ("1970-01-01T00:00:00-06:00", 0.25),
        (dt.date(1969, 12, 31), -1.0),
        (dt.datetime(1970, 1, 1, 12, tzinfo=dt.UTC), 0.5),
        (dt.datetime(1970, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=12))), 0.5),
    ],
)
def test_dates_are_read_in_every_form(value: object, days: float) -> None:
    predict = function(of_coefficients(TableSchema((Column("seen", "date"),), (Column("y"),)), np.ones((1, 1))))
    assert predict({"seen": value}) == {"y": days}


@pytest.mark.parametrize(
    ("column", "value"),
    [(Column("x"), "1"), (Column("x"), True), (Column("x", "boolean"), 2), (Column("x", "date"), 3)],
)
def test_a_value_of_another_kind_is_an_error_with_the_name(column: Column, value: object) -> None:
    predict = function(of_coefficients(TableSchema((column,), (Column("y"),)), np.ones((1, 1))))
    with pytest.raises(TypeError, match="'x': expected"):
        predict({"x": value})


def test_a_row_without_a_feature_is_an_error() -> None:
    with pytest.raises(KeyError):
        function(version_of("numbers"))({"a": 1.0})


def test_levels_may_be_numbers_and_booleans_as_in_json() -> None:
    schema = TableSchema((Column("c", "category", ("0", "4", "4.5", "true")),), (Column("y"),))
    version = of_coefficients(schema, np.array([[1.0, 2.0, 3.0]]))
    for value in ("4", 4, 4.0, 4.5, "4.5", True, "true", 7):
        (expected,) = served(version, [{"c": value}])[0].tolist()
        assert function(version)({"c": value}) == {"y": None if np.isnan(expected) else expected}


def test_the_docstrings_say_what_the_model_is() -> None:
    version = version_of("every kind")
    module = ast.parse(program(version))
    head = " ".join((ast.get_docstring(module) or "").split())
    assert all(sentence in head for sentence in PythonExport().not_carried(version))
    doc = function(version).__doc__
    assert '- "species": category, one of "Adelie", "Chinstrap", "Gentoo"' in doc
    assert "Targets: " in doc


def test_a_model_that_is_too_large_is_refused() -> None:
    table = TableSchema.of_numbers([f"x{i}" for i in range(2000)], [f"y{i}" for i in range(51)])
    with pytest.raises(NotExportable, match=f"at most {MAX_WEIGHTS:,} weights, and this model needs 102,000"):
        program(of_coefficients(table, np.ones((51, 2000))))


def test_a_function_of_2000_columns_can_be_compiled() -> None:
    rng = np.random.default_rng(0)
    table = TableSchema.of_numbers([f"x{i}" for i in range(2000)], ["y"])
    version = of_coefficients(table, rng.normal(size=(1, 2000)))
    row = dict(zip(version.card.features, rng.normal(size=2000).tolist(), strict=True))
    assert function(version)(row)["y"] == pytest.approx(served(version, [row])[0, 0], rel=1e-12, abs=1e-11)
