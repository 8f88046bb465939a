"""Excel workbooks and OpenDocument spreadsheets: the table in one of their sheets."""

from collections.abc import Iterator, Sequence

from app.data.batch import (
    CellBatch,
    Columns,
    RowBatch,
    Source,
    batch_rows,
    check_distinct,
    check_present,
    from_record_batch,
    row_error,
)
from app.data.columns.options import ReadingOptions
from app.data.columns.schema import PLAIN, Dialect
from app.data.formats.arrow_cells import cell_batch
from app.data.formats.base import Output, TableFormat, TableWriter
from app.data.lazy_pyarrow import pa
from app.data.sheets.reader import Part, memory_of, open_sheet
from app.data.sheets.writer import SheetWriter
from app.errors import InvalidInput, LinserveError

OLD_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # of a workbook before .xlsx


class ExcelFormat(TableFormat):
    """A sheet of a workbook. Rows are numbered as in the sheet. A column of cells of several kinds is text."""

    name = "excel"
    media_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    label = "Excel (.xlsx, .xls, .ods)"
    needs_whole_file = True  # another process reads it
    file_label = "an Excel workbook or an OpenDocument spreadsheet"
    is_text = False
    options = frozenset({"sheet", "skip", "header"})
    has_untyped_text = True

    def dialect(self, source: Source, options: ReadingOptions, known: Dialect | None = None) -> Dialect:
        """Return the sheet, and the place of its header: the first full row."""
        known = known or PLAIN
        sheet = known.sheet if options.sheet is None else options.sheet
        part = Part(sheet, options.skip, options.header or known.header)
        with open_sheet(source, part) as (found, _):
            return Dialect(header=part.header, skip=found.top, sheet=sheet)

    def explain(self, error: LinserveError, head: bytes, dialect: Dialect) -> LinserveError:  # noqa: ARG002
        """Name the sheet in an error about columns that are not in it."""
        if dialect.sheet is not None or not isinstance(error, InvalidInput) or error.message[:8] != "Columns ":
            return error
        return InvalidInput(
            f"{error.message} The first sheet with a table was read. `sheet` chooses another.", error.details
        )

    def first_row(self, dialect: Dialect) -> int:
        return dialect.skip + (1 if dialect.header == "none" else 2)

    def column_names(self, source: Source, dialect: Dialect = PLAIN) -> list[str]:
        with open_sheet(source, _part(dialect)) as (sheet, _):
            return _names(sheet.names, dialect)

    def metadata_bytes(self, source: Source) -> int:
        """Return the maximum memory of the process that parses the workbook, in bytes."""
        return memory_of(source)

    def batches(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:
        row = self.first_row(columns.dialect)
        for batch in self.cells(source, columns, threads):
            _check_numbers(batch.cells, columns, row)
            yield from_record_batch(batch.cells, columns, row)
            row += batch.cells.num_rows

    def cells(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[CellBatch]:  # noqa: ARG002
        row, size = self.first_row(columns.dialect), batch_rows(Columns(columns.names))
        with open_sheet(source, _part(columns.dialect)) as (sheet, blocks):
            check_present(_names(sheet.names, columns.dialect), columns)
            for block in blocks:
                selected = block.select(columns.names)
                for start in range(0, block.num_rows, size):
                    batch = selected.slice(start, size)
                    yield cell_batch(batch, columns, row)
                    row += batch.num_rows

    def writer(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> TableWriter:
        return SheetWriter(file, keep, names)


EXCEL = ExcelFormat()


def _part(dialect: Dialect) -> Part:
    return Part(dialect.sheet, dialect.skip, dialect.header)


def _names(names: list[str], dialect: Dialect) -> list[str]:
    check_distinct(names, "Several columns have the same name in the header:", row=dialect.skip + 1)
    return names


def _check_numbers(cells: "pa.RecordBatch", columns: Columns, row: int) -> None:
    """Raise InvalidInput for a column of words where numbers were asked for, which only an encoder can read."""
    for name in columns.numbers:
        column = cells.column(name)
        if not pa.types.is_floating(column.type):
            raise row_error("Expected numbers, found cells of another kind.", row=row, column=name)
