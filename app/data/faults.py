"""The first fault of every column of a file, so that a file need not be sent once for each of them."""

from collections.abc import Callable, Iterator

from app.data.batch import Columns, Reader, RowBatch, Source, in_columns
from app.data.name_hints import MAX_LISTED
from app.errors import FieldError, InvalidInput

MAX_NUMBERS = 1 << 21  # Numbers that may be read again to find further faults, besides those read before.


def read_rows(read: Reader, source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:
    """Read a file's rows in parts.

    Raises InvalidInput with the first fault of each column, at most MAX_LISTED. The search for further faults takes
    about as much work as finding the first one.
    """
    numbers = 0
    try:
        for part in read(source, columns, threads):
            numbers += part.values.size
            yield part
    except InvalidInput as error:
        if not _columns_of(error, columns):
            raise
        # A fault of the header has a row and a column too, but no further ones.
        details = _all_details(error, lambda rest: read(source, rest, threads), columns, numbers + MAX_NUMBERS)
        if len(details) == len(error.details):
            raise
        raise in_columns(details) from None


def _columns_of(error: InvalidInput, columns: Columns) -> set[str]:
    """Return the columns whose values are at fault; none if the error is about something else."""
    found = {detail.column for detail in error.details if detail.row is not None}
    return {name for name in columns.numbers if name in found} if found <= set(columns.numbers) else set()


def _all_details(
    error: InvalidInput, read: Callable[[Columns], Iterator[RowBatch]], columns: Columns, numbers: int
) -> list[FieldError]:
    details: list[FieldError] = []
    while found := _columns_of(error, columns):
        error.__traceback__ = None  # Its frames hold the part that was read last.
        details += error.details
        columns = columns._replace(numbers=[name for name in columns.numbers if name not in found], keep=(), only=False)
        if not columns.numbers or len(details) >= MAX_LISTED:
            break
        try:
            for part in read(columns):
                numbers -= part.values.size
                if numbers < 0:
                    return details
        except InvalidInput as another:
            error = another
        else:
            break
    return details
