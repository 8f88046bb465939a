"""Write a table as an Excel workbook. Text is never a formula or a link."""

import datetime as dt
import math
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any

from app.data.batch import Array
from app.data.formats.base import Output
from app.data.lazy_pyarrow import pa
from app.data.sheets.child_limits import MAX_ROWS
from app.errors import InvalidInput

MAX_COLUMNS = 16_384
_FIRST_YEAR = 1900  # Excel has no earlier dates.
_TRUNCATED = -2  # what xlsxwriter returns for a text that is too long for a cell
_OPTIONS = {
    "constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False
}  # fmt: skip


class SheetWriter:
    """Writes rows to temporary files, which become a workbook at the end. They are removed with the writer.

    They are in the folder of the output, if it has one.
    """

    def __init__(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> None:
        import xlsxwriter  # when it is first used, because few workers need it

        if len(keep) + len(names) > MAX_COLUMNS:
            raise InvalidInput(f"A sheet has at most {MAX_COLUMNS} columns, and the response has more. Accept CSV.")
        folder = tempfile.mkdtemp(prefix="xlsx-", dir=getattr(file, "folder", None))
        self._workbook = xlsxwriter.Workbook(file, {**_OPTIONS, "tmpdir": folder})
        self._sheet = self._workbook.add_worksheet("Predictions")
        self._discard = weakref.finalize(self, _discard, folder, self._sheet)
        self._day = self._workbook.add_format({"num_format": "yyyy-mm-dd"})
        self._time = self._workbook.add_format({"num_format": "yyyy-mm-dd hh:mm:ss.000"})
        self._rows = 0
        self._write_row([*keep, *names])

    def write(self, kept: "pa.RecordBatch | None", values: Array) -> None:
        columns = [*(_cells(column) for column in (kept.columns if kept is not None else ())), *values.T.tolist()]
        for row in zip(*columns, strict=True):
            self._write_row(row)

    def close(self) -> None:
        self._workbook.close()
        self._discard()

    def _write_row(self, row: Sequence[Any]) -> None:
        if self._rows >= MAX_ROWS:
            raise InvalidInput(f"A sheet has at most {MAX_ROWS} rows, and the response has more. Accept CSV.")
        for column, cell in enumerate(row):
            self._write_cell(column, cell)
        self._rows += 1

    def _write_cell(self, column: int, cell: Any) -> None:
        if cell is None:
            return
        place = (self._rows, column)
        if isinstance(cell, bool):
            self._sheet.write_boolean(*place, cell)
        elif isinstance(cell, dt.date):
            self._write_date(place, cell)
        elif isinstance(cell, str):
            if self._sheet.write_string(*place, cell) == _TRUNCATED:
                raise InvalidInput("A kept column has a text that is too long for a cell of Excel. Accept CSV.")
        elif math.isfinite(number := float(cell)):
            self._sheet.write_number(*place, number)

    def _write_date(self, place: tuple[int, int], cell: dt.date) -> None:
        if cell.year < _FIRST_YEAR:
            self._sheet.write_string(*place, cell.isoformat())
            return
        if isinstance(cell, dt.datetime):
            cell = cell.astimezone(dt.UTC).replace(tzinfo=None) if cell.tzinfo else cell
            self._sheet.write_datetime(*place, cell, self._time)
        else:
            self._sheet.write_datetime(*place, cell, self._day)


def _discard(folder: str, sheet: Any) -> None:
    if not sheet.row_data_fh.closed:  # a response that was not finished
        sheet.row_data_fh.close()
    shutil.rmtree(folder, ignore_errors=True)


def _cells(column: "pa.Array") -> list[Any]:
    """Return the cells of a kept column as Python objects. Times of day and durations are text."""
    type_ = column.type
    if pa.types.is_timestamp(type_):
        # Nanoseconds have no Python type, and Excel has no place for them. The zone's name may be unknown here.
        column = column.cast(pa.timestamp("us", type_.tz and "UTC"), safe=False)
    elif pa.types.is_time(type_) or pa.types.is_duration(type_):
        column = column.cast(pa.string())
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        raise InvalidInput("A kept column has a date that Excel cannot hold. Accept Arrow or Parquet.") from None
