"""Small tables of cells, for the tests of profiles and schemas."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from app.data.batch import CellBatch, Columns, row_error
from app.data.columns.options import ColumnOptions, Kind, ReadingOptions
from app.data.columns.plan import Inferred, Roles, plan_schema
from app.data.columns.schema import Column
from app.errors import InvalidInput

Reader = Callable[[Columns], Iterator[CellBatch]]


def reader(columns: Mapping[str, Sequence[Any]], batch_rows: int = 1 << 20) -> Reader:
    """Return a reader of columns. Lists of strings are text, as in CSV; cells asked for as numbers are float64."""
    arrays = {name: cells if isinstance(cells, pa.Array) else pa.array(cells) for name, cells in columns.items()}
    rows = len(next(iter(arrays.values())))

    def read(wanted: Columns) -> Iterator[CellBatch]:
        for start in range(0, rows, batch_rows):
            cells = {name: arrays[name].slice(start, batch_rows) for name in wanted.names}
            for name in wanted.numbers:
                cells[name] = _numbers(cells[name], name, start)
            yield CellBatch(pa.RecordBatch.from_pydict(cells))

    return read


def _numbers(cells: pa.Array, name: str, start: int) -> pa.Array:
    try:
        return cells.cast(pa.float64())
    except pa.ArrowInvalid:
        raise row_error("The value is not a number.", row=start + 2, column=name) from None


def infer(
    columns: Mapping[str, Sequence[Any]],
    targets: Sequence[str] = ("y",),
    *,
    options: ReadingOptions | None = None,
    kinds: Mapping[str, Kind] | None = None,
    batch_rows: int = 1 << 20,
    untyped: bool = True,
    features: tuple[str, ...] | None = None,
    **others: Any,
) -> Inferred:
    """Return the schema of a table with a target "y". With `untyped` false, lists of text become columns of floats."""
    if not untyped:
        columns = {
            name: cells if isinstance(cells, pa.Array) else pa.array(cells).cast(pa.float64())
            for name, cells in columns.items()
        }
    if kinds is not None:
        options = ReadingOptions(columns={name: ColumnOptions(kind=kind) for name, kind in kinds.items()})
    return plan_schema(
        reader(columns, batch_rows),
        Roles(tuple(columns), tuple(targets), features=features),
        options or ReadingOptions(),
        untyped=untyped,
        first_row=2,
        **others,
    )


def numbers(count: int) -> list[str]:
    """Return texts of numbers without a pattern."""
    return [f"{(place * 7919) % 1009 / 8}" for place in range(count)]


N = 30
Y = numbers(N)


def column(cells: list[Any] | pa.Array, **options: Any) -> Column:
    """Return the column that these cells become, next to a target."""
    return infer({"x": cells, "n": Y, "y": Y}, **options).schema.features[0]


def fault(cells: list[Any] | pa.Array, **options: Any) -> str:
    """Return the message with which these cells are refused."""
    with pytest.raises(InvalidInput) as refused:
        infer({"x": cells, "y": Y}, **options)
    return refused.value.message


def cycle(*values: Any) -> list[Any]:
    return [values[place % len(values)] for place in range(N)]
