"""A version as a workbook: one row to fill in, and formulas that predict from it."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from app.data.columns.schema import Column
from app.exchange.example_row import example_row
from app.exchange.left_behind import check_size, described, left_behind, read_as_typed
from app.exchange.linear_form import LevelSum, LinearForm, Product, fill_of, level_index_of_gap, numbers_of_gaps
from app.exchange.portable import PortableModel
from app.exchange.xlsx.cells import Exact, InputCells, Place
from app.exchange.xlsx.columns import write_columns
from app.registry.version_file import Version

MAX_WEIGHTS = 100_000  # Cells with coefficients.
MAX_TARGETS = 16_000  # A sheet has 16,384 columns.
TITLES = ("Predict", "Values", "Coefficients", "About")
FIRST_ROW = 4  # The first row of features and targets in the sheet Predict, counted from 0.
# Office has no denormal numbers (MS-OE376, the type xsd:double).
DENORMAL = "Numbers of the model that are closer to 0 than 2.2e-308 are not carried. Excel reads them as 0."
_SMALLEST_NORMAL = np.finfo(np.float64).smallest_normal
_OPTIONS = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}


class XlsxExport:
    """A workbook with four sheets: Predict, Values, Coefficients and About."""

    name = "xlsx"
    media_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    extension = ".xlsx"
    options: Mapping[str, tuple[str, ...]] = {}

    def not_carried(self, version: Version) -> tuple[str, ...]:
        denormal = (DENORMAL,) if _has_denormal(LinearForm.of(PortableModel.of(version))) else ()
        return (*left_behind(version), *read_as_typed(version), *denormal)

    def write(self, version: Version, options: Mapping[str, str]) -> bytes:  # noqa: ARG002 - it has none
        """Return the workbook. Raises NotExportable if a sheet would be too large."""
        import xlsxwriter  # when it is first used, because few workers need it

        model = PortableModel.of(version)
        form = LinearForm.of(model)
        check_size(form.size * len(form.targets), MAX_WEIGHTS, "A workbook", "coefficients")
        check_size(len(form.targets), MAX_TARGETS, "A sheet", "targets")
        content = BytesIO()
        workbook = xlsxwriter.Workbook(content, _OPTIONS)
        _Book(workbook, form, example_row(version)).write([*described(model, self.not_carried(version))])
        workbook.close()
        return content.getvalue()


class _Book:
    """The sheets of one workbook. No name and no level is part of a formula: formulas refer to cells."""

    def __init__(self, workbook: Any, form: LinearForm, example: Mapping[str, Any]) -> None:
        self._form, self._example = form, example
        self._predict, self._values, self._coefficients, self._about = map(workbook.add_worksheet, TITLES)
        self._bold = workbook.add_format({"bold": True})
        self._input = {
            "number": workbook.add_format({"bg_color": "#FFF2CC", "border": 1}),
            "boolean": workbook.add_format({"bg_color": "#FFF2CC", "border": 1}),
            "date": workbook.add_format({"bg_color": "#FFF2CC", "border": 1, "num_format": "yyyy-mm-dd hh:mm:ss"}),
            "category": workbook.add_format({"bg_color": "#FFF2CC", "border": 1, "num_format": "@"}),
        }

    def write(self, about: Sequence[str]) -> None:
        form = self._form
        self._write_head(about[0])
        cells = InputCells(self._values)
        for row, column in enumerate(form.features, FIRST_ROW):
            levels = cells.add(column, str(Place(TITLES[0], row, 1)), self._example[column.name])
            self._write_input(column, row, levels)
        predictions = write_columns(self._coefficients, form, cells, self._bold)
        for row, (target, prediction) in enumerate(zip(form.targets, predictions, strict=True), FIRST_ROW):
            self._predict.write_string(row, 4, target)
            self._predict.write_formula(row, 5, f'=IFERROR({prediction.formula},"")', self._bold, prediction.value)
        for row, line in enumerate(about):
            self._about.write_string(row, 0, line)
        self._values.write_row(0, 0, ("Feature", "Label", "Value"), self._bold)
        self._values.set_column(0, 2, 24)
        self._predict.set_column(0, 5, 20)
        self._predict.freeze_panes(FIRST_ROW, 0)

    def _write_head(self, title: str) -> None:
        sheet = self._predict
        sheet.write_string(0, 0, title, self._bold)
        sheet.write_string(1, 0, "Fill in column B. A prediction is empty if a value that the model needs is missing.")
        for index, text in enumerate(("Feature", "Value", "Kind", None, "Target", "Prediction")):
            if text is not None:
                sheet.write_string(FIRST_ROW - 1, index, text, self._bold)

    def _write_input(self, column: Column, row: int, levels: str | None) -> None:
        sheet, value, style = self._predict, self._example[column.name], self._input[column.kind]
        sheet.write_string(row, 0, column.name)
        if column.kind == "category":
            sheet.write_string(row, 1, value, style)
            sheet.data_validation(row, 1, row, 1, {"validate": "list", "source": f"={levels}", "ignore_blank": True})
        elif column.kind == "boolean":
            sheet.write_boolean(row, 1, value, style)
            sheet.data_validation(row, 1, row, 1, {"validate": "list", "source": ["TRUE", "FALSE"]})
        elif column.kind == "date":
            sheet.write_datetime(row, 1, value, style)
        else:
            sheet.write_number(row, 1, Exact(value), style)
        sheet.write_string(row, 2, _kind(column))


def _has_denormal(form: LinearForm) -> bool:
    """Return True if a coefficient, a centre or a number for gaps is denormal."""
    columns = [column for column in form.features if column.kind != "category"]
    gaps = [number for column in columns for number in (fill_of(column), *numbers_of_gaps(column)) if number]
    centres = [part.centre for part in form.parts if isinstance(part, Product)]
    weights = [part.values.ravel() if isinstance(part, LevelSum) else part.weights for part in form.parts]
    numbers = np.concatenate([gaps, centres, form.start, *weights])
    return bool(((numbers != 0) & (np.abs(numbers) < _SMALLEST_NORMAL)).any())


def _kind(column: Column) -> str:
    may_be_empty = column.missing == "indicator" or (
        level_index_of_gap(column) is not None if column.kind == "category" else column.missing == "fill"
    )
    return f"{column.kind}, may be empty" if may_be_empty else column.kind
