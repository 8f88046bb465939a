"""The cells of Arrow and Parquet columns, in their own types."""

from collections.abc import Mapping

from app.data.batch import CellBatch, Columns, check_present, from_record_batch
from app.data.formats.arrow_columns import index_names, schema_names, type_name
from app.data.kept_types import is_words
from app.data.lazy_pyarrow import pa
from app.data.names import MAX_LISTED, shown
from app.errors import FieldError, InvalidInput

_ADVICE = {
    "duration": "Convert it to a number, for instance of seconds",
    "time32": "Convert it to a number, for instance of seconds, or to a timestamp",
    "time64": "Convert it to a number, for instance of seconds, or to a timestamp",
    "list": "Write each element in a column of its own",
    "large_list": "Write each element in a column of its own",
    "fixed_size_list": "Write each element in a column of its own",
    "struct": "Write each field in a column of its own",
    "binary": "Convert it to text",
    "large_binary": "Convert it to text",
}


def cell_types(schema: "pa.Schema", columns: Columns) -> "dict[str, pa.DataType]":
    """Return the type in which the cells of each column are read.

    Dictionaries of words and of numbers stay dictionaries, unless numbers were asked for.
    Raises InvalidInput if a column is missing or not allowed, or has a type that cannot be read.
    """
    check_present(schema_names(schema), columns, index_names(schema))
    details, types = [], {}
    for name in columns.names:
        given = schema.field(name).type
        type_ = _number_type(given) if name in columns.numbers else _cell_type(given)
        if type_ is None:
            details.append(_type_fault(name, given, columns))
        else:
            types[name] = type_
    if details:
        raise InvalidInput(
            f"{len(details)} column(s) have a type that cannot be used. {shown(details[0].column or '')}: "
            f"{details[0].message}",
            details[:MAX_LISTED],
        )
    return types


def types_to_cast(types: "Mapping[str, pa.DataType]", schema: "pa.Schema") -> "dict[str, pa.DataType]":
    """Return the types that differ from those of the file, and dictionaries, whose rows may be long once decoded."""
    return {
        name: type_
        for name, type_ in types.items()
        if type_ != schema.field(name).type or pa.types.is_dictionary(type_)
    }


def cell_batch(batch: "pa.RecordBatch", columns: Columns, first_row: int) -> CellBatch:
    """Return the cells of a record batch that has the types of `cell_types`. Raises InvalidInput as `cells` does."""
    names = columns.names
    numbers = [name for name in columns.numbers if _is_number_or_null(batch.schema.field(name).type)]
    rows = from_record_batch(batch, columns._replace(numbers=numbers, keep=()), first_row)
    floats = {name: pa.array(column, from_pandas=True) for name, column in zip(numbers, rows.values.T, strict=True)}
    arrays = [floats[name] if name in floats else batch.column(name) for name in names]
    rounded = {numbers[column]: row for column, row in rows.rounded}
    return CellBatch(pa.RecordBatch.from_arrays(arrays, names=names), rounded)


def _cell_type(type_: "pa.DataType") -> "pa.DataType | None":
    if pa.types.is_dictionary(type_):
        values = _cell_type(type_.value_type)
        if values is None or not (is_words(values) or _is_number(values)):
            return values
        return type_ if values == type_.value_type else pa.dictionary(type_.index_type, values)
    if pa.types.is_string_view(type_):
        return pa.string()
    is_read = (
        _is_number(type_)
        or is_words(type_)
        or pa.types.is_boolean(type_)
        or pa.types.is_null(type_)
        or pa.types.is_date(type_)
        or pa.types.is_timestamp(type_)
    )
    return type_ if is_read else None


def _number_type(type_: "pa.DataType") -> "pa.DataType | None":
    """Return the type of a column from which numbers were asked. Only a dictionary of numbers is decoded."""
    is_coded = pa.types.is_dictionary(type_) and _is_number_or_null(type_.value_type)
    return type_.value_type if is_coded else _cell_type(type_)


def _is_number_or_null(type_: "pa.DataType") -> bool:
    return _is_number(type_) or bool(pa.types.is_null(type_))


def _is_number(type_: "pa.DataType") -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def _type_fault(name: str, type_: "pa.DataType", columns: Columns) -> FieldError:
    expected = "numbers" if name in columns.numbers else "numbers, words, booleans, dates or timestamps"
    advice = _ADVICE.get(type_name(type_), "Convert the column")
    choice = ", or leave the column out with `drop`" if columns.training else ""
    return FieldError(f"Expected {expected}, found the type {type_name(type_)}. {advice}{choice}.", column=name)
