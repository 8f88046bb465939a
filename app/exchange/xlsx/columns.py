"""The sheet Coefficients: a row for each column of the model, with its value, its centre and its coefficients."""

from math import prod
from typing import Any

from app.errors import NotExportable
from app.exchange.linear_form import Cell, LevelSum, LinearForm, Product
from app.exchange.xlsx.cells import Exact, InputCells, Written

SHEET = "Coefficients"
FIRST = 3  # Columns before the coefficients: the name, the value and the centre.
MAX_FORMULA = 8_000  # Characters. Excel takes 8,192.


def write_columns(sheet: Any, form: LinearForm, cells: InputCells, bold: Any) -> list[Written]:
    """Write the sheet, and return the formula of each target's prediction."""
    from xlsxwriter.utility import xl_col_to_name  # loaded already

    sheet.write_row(0, 0, ("Column", "Value", "Centre"), bold)
    for index, target in enumerate(form.targets):
        sheet.write_string(0, FIRST + index, target, bold)
    totals = [float(start) for start in form.start]
    sheet.write_string(1, 0, "Prediction at the centre")
    for column, number in enumerate([1.0, 0.0, *totals], 1):
        sheet.write_number(1, column, Exact(number))
    row = 2
    for part in form.parts:
        for label, value, centre, weights in _rows(part, cells):
            if len(value.formula) > MAX_FORMULA:
                raise NotExportable("A term is too long for a formula of a workbook. Export it in another format.")
            sheet.write_string(row, 0, label)
            sheet.write_formula(row, 1, f"={value.formula}", None, Exact(value.value))
            sheet.write_number(row, 2, Exact(centre))
            for index, weight in enumerate(weights):
                sheet.write_number(row, FIRST + index, Exact(weight))
                totals[index] += weight * (value.value - centre)
            row += 1
    sheet.set_column(0, FIRST + len(totals) - 1, 20)
    sheet.freeze_panes(1, 1)
    deviations = f"{SHEET}!$B$2:$B${row}-{SHEET}!$C$2:$C${row}"
    names = [xl_col_to_name(FIRST + index, col_abs=True) for index in range(len(totals))]
    formulas = [f"SUMPRODUCT({deviations},{SHEET}!{name}$2:{name}${row})" for name in names]
    return [Written(formula, total) for formula, total in zip(formulas, totals, strict=True)]


def _rows(part: LevelSum | Product, cells: InputCells) -> list[tuple[str, Written, float, list[float]]]:
    """Return the rows of a part: the label, the value, the centre and the coefficients."""
    if isinstance(part, LevelSum):
        column = part.feature
        levels = [Cell(column, "level", level) for level in column.levels]
        if column.missing == "indicator":
            levels.append(Cell(column, "gap"))
        return [
            (_label(level), cells[level], 0.0, weights)
            for level, weights in zip(levels, part.values.tolist(), strict=True)
        ]
    factors = [(cell, cells[cell]) for cell, power in part.factors for _ in range(power)]
    value = Written("*".join(found.formula for _, found in factors), prod(found.value for _, found in factors))
    label = ":".join(_label(cell) + (f"^{power}" if power > 1 else "") for cell, power in part.factors)
    return [(label, value, part.centre, part.weights.tolist())]


def _label(cell: Cell) -> str:
    name = cell.feature.name
    return {"value": name, "level": f"{name}[{cell.level}]", "gap": f"{name}[missing]"}[cell.part]
