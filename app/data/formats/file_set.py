"""Several files with the same columns, read as one table.

Errors about a row name the file and the row in that file.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from app.data.batch import CellBatch, Columns, FileSet, RowBatch, SetFile, Source
from app.data.columns.options import ReadingOptions
from app.data.columns.schema import PLAIN, Dialect
from app.data.content import begins_with, better_in_file
from app.data.formats import BY_NAME
from app.data.formats.base import Output, TableFormat, TableWriter
from app.data.limits.decode_limits import check_rows
from app.data.names import listed
from app.errors import FieldError, InvalidInput, SourceChanged
from app.storage.store import BlobChanged, BlobNotFound

B = TypeVar("B", RowBatch, CellBatch)

_ROW = re.compile(r"\b([Rr])ow (\d+)\b")


def format_of(name: str, source: Source) -> TableFormat | None:
    """Return the format of a source by its name, or None if it has none."""
    table_format = BY_NAME.get(name)
    if table_format is None or not isinstance(source, FileSet):
        return table_format
    return FileSetFormat(table_format)


def known_format(name: str, source: Source) -> TableFormat:
    """Return the format of a source by the name of a file format."""
    table_format = format_of(name, source)
    assert table_format is not None
    return table_format


class FileSetFormat(TableFormat):
    """Files of one format. The first one decides how text is divided, and which columns there are.

    Rows are numbered as if all files were one. `in_files` turns such a number into a file and its row.
    """

    def __init__(self, table_format: TableFormat) -> None:
        self._format = table_format
        self.name = table_format.name
        self.media_type = table_format.media_type
        self.label = table_format.label
        self.is_text = table_format.is_text
        self.options = table_format.options
        self.has_untyped_text = table_format.has_untyped_text

    def dialect(self, source: Source, options: ReadingOptions, known: Dialect | None = None) -> Dialect:
        with self._opened(_files(source)[0], PLAIN) as file:
            return self._format.dialect(file, options, known)

    def first_row(self, dialect: Dialect) -> int:
        return self._format.first_row(dialect)

    def column_names(self, source: Source, dialect: Dialect = PLAIN) -> list[str]:
        with self._opened(_files(source)[0], dialect) as file:
            return self._format.column_names(file, dialect)

    def index_columns(self, source: Source) -> list[str]:
        with self._opened(_files(source)[0], PLAIN) as file:
            return self._format.index_columns(file)

    def metadata_bytes(self, source: Source) -> int:
        with self._opened(_files(source)[0], PLAIN) as file:
            return self._format.metadata_bytes(file)

    def check_size(self, source: Source, names: Sequence[str], limit: int) -> int:
        """Check the files of a set with a limit. Those of others are checked when they are read."""
        assert isinstance(source, FileSet)
        most = 0
        for file in source.files if source.limit is not None else ():
            with self._opened(file, PLAIN) as part:
                most = max(most, self._format.check_size(part, names, limit))
        return most

    def batches(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:
        return self._each(
            source,
            columns,
            lambda part: self._format.batches(part, columns, threads),
            lambda batch: len(batch.values),
        )

    def cells(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[CellBatch]:
        return self._each(
            source,
            columns,
            lambda part: self._format.cells(part, columns, threads),
            lambda batch: batch.cells.num_rows,
        )

    def _each(
        self,
        source: Source,
        columns: Columns,
        read_file: Callable[[Source], Iterator[B]],
        count: Callable[[B], int],
    ) -> Iterator[B]:
        """Yield the batches that `read_file` yields for each file in turn. `count` returns the rows of a batch."""
        assert isinstance(source, FileSet)
        read = 0
        for place, file in enumerate(source.files):
            rows = 0
            with self._opened(file, columns.dialect) as part:
                self._check_columns(source, place, part, columns)
                self._format.check_memory(part, columns.names)
                for batch in read_file(part):
                    rows += count(batch)
                    _check_limit(source, read + rows, columns)
                    yield batch
            source.note_rows(place, rows)
            read += rows

    def writer(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> TableWriter:
        return self._format.writer(file, keep, names)

    @contextlib.contextmanager
    def _opened(self, file: SetFile, dialect: Dialect) -> Iterator[Source]:
        """Yield a file as its format reads it. Errors in the block get the file's name."""
        try:
            yield file.source()
        except (BlobChanged, BlobNotFound):
            raise SourceChanged(file.name) from None
        except InvalidInput as error:
            if isinstance(error, SourceChanged):
                raise
            raise located(self._explained(error, file, dialect), file.name) from None

    def _explained(self, error: InvalidInput, file: SetFile, dialect: Dialect) -> InvalidInput:
        """Return an error that names the real format of a file if it has another one."""
        head = begins_with(file.source())  # raises SourceChanged if that is the cause
        return better_in_file(error, head, self._format, dialect)

    def _check_columns(self, source: FileSet, place: int, part: Source, columns: Columns) -> None:
        """Raise InvalidInput if a file has other columns, or columns of another type, than the first."""
        described = described_columns(self._format, part, columns.dialect)
        if place == 0:
            source.columns = described
        elif source.columns is not None:
            check_same_columns(described, source.columns, source.files[0].name, columns.names)


def _check_limit(source: FileSet, rows: int, columns: Columns) -> None:
    if source.limit is not None:
        check_rows(rows, len(columns.names), source.limit)


def described_columns(table_format: TableFormat, part: Source, dialect: Dialect) -> dict[str, str]:
    """Return the columns of a file, with the kinds of their types if the format has types."""
    types = table_format.column_types(part)
    return {name: types.get(name, "") for name in table_format.column_names(part, dialect)}


def check_same_columns(
    described: Mapping[str, str], known: Mapping[str, str], first: str, names: Sequence[str]
) -> None:
    """Raise InvalidInput if a file has other columns than the file `first`, or another type in one of `names`."""
    if described.keys() != known.keys():
        missing = [name for name in known if name not in described]
        new = [name for name in described if name not in known]
        parts = [f"it lacks {listed(missing)}"] * bool(missing) + [f"it also has {listed(new)}"] * bool(new)
        raise InvalidInput(f"The columns are not those of {first}: {' and '.join(parts)}.")
    for name in names:
        if {known[name], described[name]} - {""} > {known[name]}:
            message = f"The type is {described[name]}, but in {first} it is {known[name]}."
            raise InvalidInput(f"Column {listed([name])}: {message}", [FieldError(message, column=name)])


def _files(source: Source) -> Sequence[SetFile]:
    assert isinstance(source, FileSet)
    return source.files


def located(error: InvalidInput, file: str) -> InvalidInput:
    """Return the error with the name of its file in the message and in each place."""
    details = [replace(detail, file=file) for detail in error.details] or [FieldError(error.message, file=file)]
    return InvalidInput(f"{file}: {error.message}", details)


@contextlib.contextmanager
def in_files(source: Source, first_row: int) -> Iterator[None]:
    """Replace rows numbered over all files, in an InvalidInput of the block, by files and their rows."""
    try:
        yield
    except InvalidInput as error:
        if not isinstance(source, FileSet) or any(detail.file for detail in error.details):
            raise
        if not any(detail.row for detail in error.details):
            raise
        raise _in_files(error, source, first_row) from None


def _in_files(error: InvalidInput, source: FileSet, first_row: int) -> InvalidInput:
    def placed(detail: FieldError) -> FieldError:
        if detail.row is None:
            return detail
        file, row = source.place(detail.row - first_row)
        return replace(detail, file=file, row=first_row + row)

    return InvalidInput(with_files(error.message, source, first_row), list(map(placed, error.details)))


def with_files(message: str, source: Source, first_row: int) -> str:
    """Return a message with the file's name and its row in place of a row numbered over all files."""
    if not isinstance(source, FileSet):
        return message

    def placed(match: re.Match[str]) -> str:
        file, row = source.place(int(match[2]) - first_row)
        return f"{match[1]}ow {first_row + row} of {file}"

    return _ROW.sub(placed, message)
