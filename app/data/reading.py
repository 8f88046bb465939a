"""Reads a file's rows and reports the first fault of each column, so that one upload shows all of them."""

from collections.abc import Callable, Iterator

from app.data.batch import Columns, RowBatch, Source, in_columns
from app.data.content import explained
from app.data.formats.base import TableFormat
from app.data.names import MAX_LISTED
from app.errors import FieldError, InvalidInput

MAX_NUMBERS = 1 << 21  # Numbers read in search of further faults, in addition to those before the first fault.


def read_file(source: Source, table_format: TableFormat, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:
    """Yield a file's rows.

    Raises InvalidInput with the first fault of each column, at most MAX_LISTED. The search for further faults reads at
    most MAX_NUMBERS numbers more than the search for the first.
    """

    def read(some: Columns) -> Iterator[RowBatch]:
        return table_format.batches(source, some, threads)

    with explained(source, table_format, columns.dialect):
        numbers = MAX_NUMBERS
        try:
            for batch in read(columns):
                numbers += batch.values.size
                yield batch
        except InvalidInput as error:
            details = _all_details(error, read, columns, numbers)
            if len(details) <= len(error.details):
                raise
            raise in_columns(details) from None


def _columns_at_fault(error: InvalidInput, columns: Columns) -> set[str]:
    """Return the columns whose values are at fault; none if the error is about something else."""
    names = {detail.column for detail in error.details if detail.row is not None}
    at_fault = names.intersection(columns.numbers)
    return {name for name in at_fault if name is not None} if names == at_fault else set()


def _all_details(
    error: InvalidInput, read: Callable[[Columns], Iterator[RowBatch]], columns: Columns, numbers: int
) -> list[FieldError]:
    """Return the first fault of each column. At most `numbers` numbers are read to find those after `error`."""
    details: list[FieldError] = []
    while at_fault := _columns_at_fault(error, columns):
        error.__traceback__ = None  # Its frames hold the batch that was read last.
        details += error.details
        others = [name for name in columns.numbers if name not in at_fault]
        columns = columns._replace(numbers=others, keep=(), only=False)
        if not columns.numbers or len(details) >= MAX_LISTED:
            break
        try:
            for batch in read(columns):
                numbers -= batch.values.size
                if numbers < 0:
                    return details
        except InvalidInput as another:
            error = another
        else:
            break
    return details
