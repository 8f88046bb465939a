"""Workbooks: every kind of column, hostile names, exact numbers, and what a sheet cannot hold."""

import re
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_runs import predictions_of_workbook
from exported import TABLES, assert_as_served, rows_with_gaps, served, version_of
from mixed import version_of_table
from python_calamine import CalamineWorkbook
from shown_models import LEVELS, QUOTES, SCRIPT

from app.data.columns.schema import Column, TableSchema
from app.errors import NotExportable
from app.exchange.example_row import example_row
from app.exchange.imported import ImportedModel
from app.exchange.portable import PortableModel
from app.exchange.publishing import to_version
from app.exchange.xlsx.writer import DENORMAL, MAX_WEIGHTS, XlsxExport
from app.registry.origin import Imported
from app.registry.version_file import Version


def workbook(version: Version) -> bytes:
    return XlsxExport().write(version, {})


def sheet(content: bytes, name: str) -> list[list[object]]:
    """Return the rows of a sheet as a program without formulas sees them: with the values that the file has."""
    rows = CalamineWorkbook.from_filelike(BytesIO(content)).get_sheet_by_name(name).to_python()
    return [[*row] for row in rows]


def formulas_of(content: bytes) -> list[str]:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        sheets = [archive.read(name).decode() for name in archive.namelist() if "worksheets/" in name]
    return re.findall("<f>(.*?)</f>", "".join(sheets))


HOSTILE = TableSchema(
    (
        Column(QUOTES, "category", LEVELS, "indicator", na=("=1+1;", '"x"')),
        Column("=HYPERLINK(1)", missing="fill", fill=1.5, na=("-999", "-1")),
        Column("@SUM(A1)", "boolean", missing="indicator", fill=0.0),
        Column(SCRIPT, "date"),
    ),
    (Column("+1"), Column("-y")),
)


@pytest.mark.parametrize(
    "name",
    [
        *(name if name in ("numbers", "every kind") else pytest.param(name, marks=pytest.mark.slow) for name in TABLES),
        "hostile",
    ],
)
def test_every_kind_of_column_is_treated_as_the_service_treats_it(name: str, tmp_path: Path) -> None:
    version = version_of_table(HOSTILE, 80) if name == "hostile" else version_of(name)
    rows = rows_with_gaps(version)
    assert_as_served(predictions_of_workbook(workbook(version), version, rows, tmp_path), version, rows)


def test_a_program_that_computes_no_formulas_shows_the_prediction_for_the_example() -> None:
    for name in TABLES:
        version = version_of(name)
        rows = sheet(workbook(version), "Predict")[3:]
        expected = served(version, [{name: _json(value) for name, value in example_row(version).items()}])
        found = [row[5] for row in rows[1 : 1 + len(version.card.targets)]]
        assert found == pytest.approx(expected[0].tolist(), rel=1e-9)


def _json(value: object) -> object:
    return value if isinstance(value, bool | str | float) else str(value)


def test_no_name_and_no_level_is_in_a_formula() -> None:
    content = workbook(version_of_table(HOSTILE))
    formulas = formulas_of(content)
    assert formulas
    references = r"(?:Predict|Values|Coefficients)!\$[A-Z]+\$\d+(?::\$[A-Z]+\$\d+)?"
    functions = r"IF|OR|SUM|SUMPRODUCT|EXACT|TRIM|NA|ISNUMBER|ISLOGICAL|IFERROR"
    rest = [
        re.sub(rf"{references}|\b(?:{functions})\(|[()=,*+<>-]|&gt;|&quot;|\"|\b\d+\b", "", text) for text in formulas
    ]
    assert set(rest) == {""}
    cells = {cell for name in ("Predict", "Values", "Coefficients") for row in sheet(content, name) for cell in row}
    assert {*LEVELS, *(column.name for column in (*HOSTILE.features, *HOSTILE.targets))} <= cells


def version_with(numbers: Sequence[float], *features: Column, **model: Any) -> Version:
    """Return a version with these coefficients."""
    columns = features or tuple(Column(f"x{index}") for index in range(len(numbers)))
    portable = PortableModel(TableSchema(columns, (Column("y"),)), np.array([numbers]), np.zeros(1), **model)
    return to_version(ImportedModel(portable), "model", Imported("json", "coefficients"))


def test_the_numbers_have_all_their_digits() -> None:
    numbers = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -123456789.12345679]
    with zipfile.ZipFile(BytesIO(workbook(version_with(numbers)))) as archive:
        text = archive.read("xl/worksheets/sheet3.xml").decode()
    assert {*map(repr, numbers)} <= {*re.findall("<v>(.*?)</v>", text)}


@pytest.mark.parametrize(
    ("version", "is_denormal"),
    [
        (version_with([1.0, 0.0, -2.2250738585072014e-308]), False),
        (version_with([1.0, -2.225073858507201e-308]), True),
        (version_with([1.0], centre=np.array([1e-310]), start=np.zeros(1)), True),
        (version_with([1.0], centre=np.array([2.0]), start=np.array([5e-324])), True),
        (version_with([1.0], Column("x", missing="fill", fill=1e-310)), True),
        (version_with([1.0], Column("x", missing="fill", fill=0.0, na=("1e-310",))), True),
        (version_with([1e-310], Column("x", "category", ("a", "b"))), True),
    ],
)
def test_numbers_that_excel_reads_as_zero_are_not_carried(version: Version, is_denormal: bool) -> None:
    assert (DENORMAL in XlsxExport().not_carried(version)) == is_denormal
    assert ([DENORMAL] in sheet(workbook(version), "About")) == is_denormal


def test_the_example_is_made_of_means_and_reference_levels() -> None:
    version = version_of("every kind")
    example = example_row(version)
    assert example["species"] == "Adelie"
    mean = version.model.statistics.mean[version.model.columns.index("age")]
    assert example["age"] == float(f"{mean:.3g}")


def test_the_inputs_are_checked_by_lists() -> None:
    with zipfile.ZipFile(BytesIO(workbook(version_of("every kind")))) as archive:
        text = archive.read("xl/worksheets/sheet1.xml").decode()
    assert text.count('<dataValidation type="list"') == 3
    assert "<formula1>Values!$B$3:$B$5</formula1>" in text
    assert '<formula1>"TRUE,FALSE"</formula1>' in text


def test_the_sheet_about_says_what_is_not_carried() -> None:
    version = version_of("every kind")
    lines = {row[0] for row in sheet(workbook(version), "About")}
    assert lines > {*XlsxExport().not_carried(version)}


def test_a_model_that_is_too_large_is_refused() -> None:
    table = TableSchema.of_numbers([f"x{index}" for index in range(2000)], [f"y{index}" for index in range(60)])
    model = PortableModel(table, np.ones((60, 2000)), np.zeros(60))
    version = to_version(ImportedModel(model), "model", Imported("json", "coefficients"))
    with pytest.raises(NotExportable, match=f"A workbook has at most {MAX_WEIGHTS:,} coefficients"):
        workbook(version)
