"""CSV to blocks of float64, read by pyarrow."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.errors import Detail, InvalidInput

BLOCK_BYTES = 1 << 20  # a row has to fit into one


def read_header(path: Path) -> list[str]:
    """The names in the first row.

    Raises InvalidInput where there is none, it is not UTF-8, or a name stands twice.
    """
    with path.open("rb") as file:
        start = file.read(BLOCK_BYTES)
    try:
        # An incomplete character at the cut is no fault of the header's.
        text = start.decode("utf-8-sig", errors="strict" if len(start) < BLOCK_BYTES else "ignore")
        names = next((row for row in csv.reader(io.StringIO(text, newline="")) if row), [])
    except (UnicodeDecodeError, csv.Error):
        raise InvalidInput("The file is not UTF-8 text with a header row.") from None
    if not names:
        raise InvalidInput("The file is empty; it needs a header row with the columns' names.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        details = [Detail("The name stands twice.", row=1, column=name) for name in twice[:20]]
        raise InvalidInput("A column's name stands twice in the header.", details)
    return names


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[NDArray[np.float64]]:
    """Blocks of rows, (n, len(columns)), columns in the given order, from a file with a header row.

    Raises InvalidInput with the place of the first value that is missing, not a number or not finite. Rows count
    from 1 as in a spreadsheet, the header being row 1; empty lines do not count.
    """
    import pyarrow as pa  # 25 MB and a tenth of a second, for whoever reads files
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

    header = read_header(path)
    missing = [name for name in columns if name not in header]
    if missing:
        raise InvalidInput("Columns are missing.", [Detail(f'No column "{name}".', row=1) for name in missing[:20]])
    try:
        # One thread: only then does pyarrow say in which row it stumbled.
        reader = open_csv(
            path,
            read_options=ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=ParseOptions(newlines_in_values=True),
            convert_options=ConvertOptions(
                include_columns=list(columns), column_types=dict.fromkeys(columns, pa.float64())
            ),
        )
        row = 2
        for batch in reader:
            block = np.empty((batch.num_rows, len(columns)))
            for index, column in enumerate(batch.columns):
                # Nulls (an empty cell, NA, NaN) come out as NaN.
                block[:, index] = column.to_numpy(zero_copy_only=False)
            if not np.isfinite(block).all():
                at, index = (int(place) for place in np.argwhere(~np.isfinite(block))[0])
                fault = "is missing" if np.isnan(block[at, index]) else "is not a finite number"
                raise _refusal(f"The value {fault}.", row=row + at, column=columns[index])
            yield block
            row += batch.num_rows
    except pa.ArrowInvalid as error:
        raise _explanation(str(error), header) from None


def _refusal(message: str, *, row: int, column: str | None = None) -> InvalidInput:
    place = f'Row {row}, column "{column}"' if column else f"Row {row}"
    return InvalidInput(f"{place}: {message}", [Detail(message, row=row, column=column)])


def _explanation(message: str, header: Sequence[str]) -> InvalidInput:
    """What pyarrow's message says, without the input that it quotes."""
    if place := re.match(r"In CSV column #(\d+): Row #(\d+)", message):
        return _refusal(
            "The value is not a number; `features` chooses the columns to read.",
            row=int(place[2]),
            column=header[int(place[1])],
        )
    if place := re.match(r"CSV parse error: Row #(\d+): Expected (\d+) columns, got (\d+)", message):
        return _refusal(f"Expected {place[2]} values, found {place[3]}.", row=int(place[1]))
    if "straddling" in message:
        return InvalidInput(f"A row is longer than {BLOCK_BYTES} bytes.")
    return InvalidInput("The file is not readable as CSV.")
