"""The parts that Arrow and Parquet share: reading a schema, checking types, and writing tables."""

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from app.data.batch import Array, Columns, Source, check_distinct, check_present
from app.data.columns.schema import PLAIN, Dialect
from app.data.formats.base import TableFormat
from app.data.kept_types import kept_type
from app.data.lazy_pyarrow import pa, raise_if_memory
from app.data.names import MAX_LISTED, shown
from app.errors import FieldError, InvalidInput


class SchemaFormat(TableFormat):
    """A format whose files have a schema."""

    is_text = False

    @abstractmethod
    def schema(self, source: Source) -> "pa.Schema":
        """Return the columns' names and types. Raises InvalidInput if they cannot be read."""

    def column_names(self, source: Source, dialect: Dialect = PLAIN) -> list[str]:  # noqa: ARG002
        return schema_names(self.schema(source))

    def column_types(self, source: Source) -> dict[str, str]:
        return {field.name: _kind_of(field.type) for field in self.schema(source)}

    def index_columns(self, source: Source) -> list[str]:
        return index_names(self.schema(source))


@contextlib.contextmanager
def readable(label: str) -> Iterator[None]:
    """Raise InvalidInput if pyarrow cannot read the file, which should be `label`."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise_if_memory(error)
        raise InvalidInput(unreadable(label)) from None


def unreadable(label: str) -> str:
    """Return the message about a body that is not `label`."""
    return f"The body was sent as {label}, but is not readable as {label}. Write it again, or correct Content-Type."


def schema_names(schema: "pa.Schema") -> list[str]:
    """Return the names of the columns. Raises InvalidInput if there are none, or if one appears twice."""
    try:
        names = list(schema.names)
    except UnicodeDecodeError:
        raise InvalidInput("A column's name is not UTF-8. Rename it.") from None
    check_distinct(names, "Several columns have the same name:")
    if not names:
        raise InvalidInput("The file has no columns. Expected the features, and for a training the targets.")
    return names


class _PandasColumn(msgspec.Struct):
    field_name: Any = None
    pandas_type: Any = None


class _PandasMetadata(msgspec.Struct):
    index_columns: list[Any] = []
    columns: list[_PandasColumn] = []


def index_names(schema: "pa.Schema") -> list[str]:
    """Return the columns that pandas recorded as a frame's index. An index that is a range has none."""
    present = set(schema.names)
    return [name for name in _pandas_metadata(schema).index_columns if isinstance(name, str) and name in present]


def categorical_names(schema: "pa.Schema") -> list[str]:
    """Return the columns of integers that were categories in pandas. Parquet has no type for them."""
    coded = [column.field_name for column in _pandas_metadata(schema).columns if column.pandas_type == "categorical"]
    names = {name for name in coded if isinstance(name, str)}
    return [name for name in schema.names if name in names and pa.types.is_integer(schema.field(name).type)]


def _pandas_metadata(schema: "pa.Schema") -> _PandasMetadata:
    text = (schema.metadata or {}).get(b"pandas", b"{}")
    try:
        return msgspec.json.decode(text, type=_PandasMetadata)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _PandasMetadata()


def check_columns(schema: "pa.Schema", columns: Columns) -> None:
    """Raise InvalidInput if a column is missing or not allowed, or has a type that cannot be used."""
    check_present(schema_names(schema), columns, index_names(schema))
    choice = ", or choose the columns to read with `features`" if columns.training else ""
    details = [
        FieldError(f"Expected numbers, found the type {type_name(type_)}. Convert the column{choice}.", column=name)
        for name in columns.numbers
        if not (
            pa.types.is_integer(type_ := schema.field(name).type)
            or pa.types.is_floating(type_)
            or pa.types.is_decimal(type_)
            or pa.types.is_null(type_)
        )
    ]
    details += [
        FieldError("Only numbers, words, booleans, dates and times can be kept.", column=name)
        for name in columns.keep
        if kept_type(schema.field(name).type) is None
    ]
    if details:
        raise InvalidInput(
            f"{len(details)} column(s) have a type that cannot be used. {shown(details[0].column or '')}: "
            f"{details[0].message}",
            details[:MAX_LISTED],
        )


def _kind_of(type_: "pa.DataType") -> str:
    """Return the kind of a type. It is empty for a column of nulls, which fits all kinds."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_null(type_):
        return ""
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "number"
    return type_name(type_).removeprefix("large_").removesuffix("_view")


def type_name(type_: "pa.DataType") -> str:
    """Return the name of a type without its parameters, which the client chose."""
    return str(type_).partition("<")[0].partition("[")[0]


def record_batch(kept: "pa.RecordBatch | None", names: Sequence[str], values: Array) -> "pa.RecordBatch":
    """Return the kept columns, and then the columns of numbers."""
    columns = [*(kept.columns if kept is not None else ()), *map(_column, values.T)]
    fields = [*(kept.schema if kept is not None else ()), *(pa.field(name, pa.float64()) for name in names)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _column(numbers: Array) -> "pa.Array":
    missing = np.isnan(numbers)
    return pa.array(numbers, mask=missing) if missing.any() else pa.array(numbers)


class ArrowTableWriter:
    """Writes tables with a schema. The first rows decide the types of the kept columns."""

    def __init__(self, keep: Sequence[str], names: Sequence[str], open_writer: "Callable[[pa.Schema], Any]") -> None:
        """Prepare a table. `open_writer` returns a writer of record batches with a schema, as pyarrow's are."""
        self._keep, self._names, self._open_writer = keep, names, open_writer
        self._schema: pa.Schema | None = None

    def write(self, kept: "pa.RecordBatch | None", values: Array) -> None:
        batch = record_batch(kept, self._names, values)
        try:
            self._writer_for(batch.schema).write_batch(batch.cast(self._schema))
        except pa.ArrowException as error:
            raise_if_memory(error)
            raise InvalidInput(
                "A kept column has values of several types, or only null in the first rows. Accept JSON or CSV."
            ) from None

    def close(self) -> None:
        kept = [pa.field(name, pa.null()) for name in self._keep]
        schema = pa.schema([*kept, *(pa.field(name, pa.float64()) for name in self._names)])
        self._writer_for(schema).close()

    def _writer_for(self, schema: "pa.Schema") -> Any:
        if self._schema is None:
            self._schema, self._writer = schema, self._open_writer(schema)
        return self._writer
