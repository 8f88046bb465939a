"""Read the JSON form of a model."""

import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.data.columns.schema import Column, TableSchema
from app.data.columns.terms import encoded_terms
from app.data.names import MAX_NAMES, check_names, listed, shown, unquoted
from app.errors import FieldError, InvalidInput, MalformedBody
from app.exchange.imported import Covariance, ImportedModel, Statistics
from app.exchange.json_model import ColumnRecord, ModelRecord, Numbers, StatisticsRecord
from app.exchange.linear_form import fill_of
from app.exchange.portable import PortableModel
from app.exchange.safetensors_reader import is_safetensors
from app.registry.foreign_card import ForeignCard, InvalidStatistics, checked_statistics, column_faults
from app.registry.model_card import SCHEMA
from app.registry.tensors import STATISTICS, TENSORS, shape_of
from app.regression.errors import InvalidTerms
from app.regression.sufficient_statistics import Array
from app.regression.terms import parse_terms

# Memory to read each comma, quote and bracket, in bytes: above the measured values for numbers, names and empty lists.
VALUE_BYTES, TEXT_BYTES, LIST_BYTES = 64, 96, 96
_ROUNDING = 1e-9  # Largest difference of an intercept that rounding explains, relative to the sum of its parts.
_BEGINNING = re.compile(rb"(?:%b)?\s*\{" % BOM_UTF8)


class JsonImport:
    """Reads the JSON form."""

    name = "json"
    media_type = "application/json"
    extensions = (".json",)

    def matches(self, content: bytes) -> bool:
        # The length at the beginning of a safetensors file may look like spaces and a brace.
        return _BEGINNING.match(content) is not None and not is_safetensors(content)

    def working_bytes(self, content: bytes) -> int:
        lists = content.count(b"[")
        return VALUE_BYTES * content.count(b",") + TEXT_BYTES * content.count(b'"') + LIST_BYTES * lists + len(content)

    def read(self, content: bytes, options: Mapping[str, str]) -> ImportedModel:  # noqa: ARG002 - the file has all names
        return to_imported(decode(content))


def decode(content: bytes) -> ModelRecord:
    """Return the record in a JSON text. Raises MalformedBody if it is not JSON, InvalidInput if it does not fit."""
    try:
        return msgspec.json.decode(content.removeprefix(BOM_UTF8), type=ModelRecord)
    except msgspec.ValidationError as error:
        message, _, path = str(error).rpartition(" - at ")
        message, path = (message, path) if message else (path, "")
        raise InvalidInput.at(_pointer(path), f"{unquoted(message)}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedBody(
            'The body is not JSON. Send an object, such as {"features": ["x"], "targets": ["y"], "coefficients": [2], '
            '"intercept": 1}. JSON has no NaN and no infinity.'
        ) from None


def to_imported(record: ModelRecord) -> ImportedModel:
    """Return the model of a record. Raises InvalidInput with the place of each fault."""
    try:
        check_names(_names(record.features), _names(record.targets))  # Their numbers are bounded from here on.
    except InvalidInput as error:
        raise InvalidInput(error.message, [_renamed(detail) for detail in error.details]) from None
    table = TableSchema(_columns(record.features), _columns(record.targets))
    for role, columns in (("features", table.features), ("targets", table.targets)):
        for index, column in enumerate(columns):
            if fault := next(column_faults(column), None):
                raise InvalidInput.at(f"/{role}/{index}", f"The column {shown(column.name)} {fault}.")
    k = len(table.targets)
    portable = PortableModel(
        table,
        _matrix(record.coefficients, k, "/coefficients"),
        _vector(record.intercept, k, "/intercept"),
        tuple(record.terms),
        None if record.centre is None else np.array(record.centre),
        None if record.start is None else _vector(record.start, k, "/start"),
    )
    _check_columns(record, portable)
    if record.statistics is not None and record.covariance is not None:
        raise InvalidInput.at("/covariance", "Give `statistics` or `covariance`, not both.")
    return ImportedModel(
        portable,
        None if record.statistics is None else _statistics(record.statistics, portable),
        _covariance(record, portable),
        record.source,
    )


def _names(records: Sequence[str | ColumnRecord]) -> list[str]:
    return [record if isinstance(record, str) else record.name for record in records]


def _columns(records: Sequence[str | ColumnRecord]) -> tuple[Column, ...]:
    return tuple(Column(record) if isinstance(record, str) else _column(record) for record in records)


def _column(record: ColumnRecord) -> Column:
    """Return a column. A constant for gaps may be text, such as a date."""
    column = Column(**msgspec.structs.asdict(record))
    if column.kind == "category" or not isinstance(column.fill, str):
        return column
    number = fill_of(column)
    return column if number is None or np.isnan(number) else replace(column, fill=number)


def _check_columns(record: ModelRecord, portable: PortableModel) -> None:
    """Raise InvalidInput unless the coefficients belong to the columns that the features and the terms make."""
    encoded = portable.table.encoded_features
    if len(set(encoded)) < len(encoded):
        twice = next(name for name, count in Counter(encoded).items() if count > 1)
        raise InvalidInput.at("/features", f"Two columns have the name {shown(twice)}. Rename a feature or a level.")
    if len(portable.terms) > MAX_NAMES:
        raise InvalidInput.at("/terms", f"Expected at most {MAX_NAMES} terms, found {len(portable.terms)}.")
    try:
        parse_terms(encoded_terms(portable.terms, portable.table), portable.table.encoded_features)
    except InvalidTerms as error:
        # The message of the error is logged, and may not hold levels.
        raise InvalidInput(error.message, [FieldError(error.faults[0].message, pointer="/terms")]) from None
    columns = portable.columns
    if record.columns is not None and tuple(record.columns) != columns:
        # The message of the error is logged, and may not hold levels.
        message = "`columns` differs from the columns of these features and terms, or has another order."
        raise InvalidInput(message, [FieldError(f"{message} Expected {listed(columns)}.", pointer="/columns")])
    p = len(columns)
    if portable.coef.shape[1] != p:
        found = portable.coef.shape[1]
        raise InvalidInput.at("/coefficients", f"Expected {p} coefficients for each target, found {found}.")
    if portable.centre is not None and len(portable.centre) != p:
        raise InvalidInput.at("/centre", f"Expected {p} values, found {len(portable.centre)}.")
    if (portable.centre is None) != (portable.start is None):
        raise InvalidInput.at("/centre", "Give `centre` and `start` together, or neither.")
    if portable.centre is not None and portable.start is not None:
        _check_intercept(portable, portable.centre, portable.start)


def _check_intercept(portable: PortableModel, centre: Array, start: Array) -> None:
    """Raise InvalidInput unless the intercept is start - coefficients centre, except for rounding errors."""
    with np.errstate(all="ignore"):
        moved = portable.coef * centre
        difference = np.abs(start - moved.sum(axis=1) - portable.intercept)
        is_same = difference <= _ROUNDING * (np.abs(start) + np.abs(moved).sum(axis=1) + np.abs(portable.intercept))
    if not is_same.all():
        message = (
            "`intercept` is not `start` minus the sum of `coefficients` times `centre`, so the predictions are not "
            "determined. Leave `centre` and `start` out, or correct one of them."
        )
        raise InvalidInput.at("/intercept", message)


def _covariance(record: ModelRecord, portable: PortableModel) -> Covariance | None:
    given = {"covariance": record.covariance, "residual_df": record.residual_df, "rss": record.rss}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if missing:
        message = f"`covariance`, `residual_df` and `rss` are needed together. Add `{missing[0]}`."
        raise InvalidInput.at(f"/{missing[0]}", message)
    assert record.covariance is not None
    assert record.residual_df is not None
    assert record.rss is not None
    for name, numbers in (("residual_df", record.residual_df), ("rss", record.rss)):
        if not all(number > 0 for number in (numbers if isinstance(numbers, list) else [numbers])):
            raise InvalidInput.at(f"/{name}", f"Expected positive numbers in `{name}`.")
    k, p = portable.coef.shape
    each: list[Any] = record.covariance
    if k == 1 and each and not any(isinstance(row, list) for row in each[0]):
        each = [each]  # one matrix, of which each row is a list of numbers
    sizes = {(len(matrix), len(row) if isinstance(row, list) else 0) for matrix in each for row in matrix}
    if len(each) != k or sizes not in ({(p + 1, p + 1)}, {(p, p)}):
        raise InvalidInput.at(
            "/covariance",
            f"Expected {k} matrices of {p + 1} rows and columns, the intercept first, or of {p} for a model without an "
            "intercept.",
        )
    if record.weighted and sizes == {(p, p)}:
        message = (
            "The mean weight of the rows does not follow from the covariance of a model without an intercept. Leave "
            "`covariance` out."
        )
        raise InvalidInput.at("/weighted", message)
    return Covariance(
        np.array(each, dtype=np.float64), record.residual_df, _vector(record.rss, k, "/rss"), record.weighted
    )


def _statistics(record: StatisticsRecord, portable: PortableModel) -> Statistics:
    """Return the statistics, checked as those of a version file from elsewhere are."""
    k, p = portable.coef.shape
    tensors: dict[str, NDArray[np.float64]] = {}
    for name, dimensions, *_ in TENSORS:
        field = name.removeprefix(STATISTICS)
        if field == name or ((value := getattr(record, field)) is None and field != "log_weights"):
            continue
        shape = shape_of(dimensions, p=p, k=k)
        tensor = _array(value, shape)
        if tensor is None:
            raise InvalidInput.at(f"/statistics/{field}", f"Expected numbers of the shape {list(shape)}.")
        tensors[name] = tensor
    table = portable.table
    card = ForeignCard(
        tuple(column.name for column in table.features),
        portable.targets,
        record.rows,
        SCHEMA,
        table=table,
        terms=portable.terms,
        weight_kind=record.weight_kind,
        discounted=record.discounted,
        untracked=record.untracked,
    )
    try:
        values = checked_statistics(card, tensors)
    except InvalidStatistics as error:
        raise InvalidInput.at("/statistics", f"No rows have these statistics: {error}.") from None
    return Statistics(values, fit_intercept=record.fit_intercept, l2=record.l2)


def _array(value: Any, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Return a number or lists of numbers as an array of this shape, or None if they have another. null is NaN."""
    try:
        array = np.array(value, dtype=np.float64)
    except ValueError:  # lists of different lengths
        return None
    array = array.reshape(1) if array.ndim == 0 else array
    return array if array.shape == shape else None


def _matrix(rows: Sequence[Numbers | float], targets: int, pointer: str) -> Array:
    if targets == 1 and not any(isinstance(row, list) for row in rows):
        return np.array([rows], dtype=np.float64)
    if len(rows) != targets:
        raise InvalidInput.at(pointer, f"Expected a list for each of {targets} targets, found {len(rows)}.")
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != (len(rows[0]) if isinstance(rows[0], list) else 0):
            raise InvalidInput.at(
                f"{pointer}/{index}", "Expected a list of numbers, as long as that of the first target."
            )
    return np.array(rows, dtype=np.float64)


def _vector(values: list[float] | float, targets: int, pointer: str) -> Array:
    numbers = values if isinstance(values, list) else [values]
    if len(numbers) != targets:
        raise InvalidInput.at(pointer, f"Expected a number for each of {targets} targets, found {len(numbers)}.")
    return np.array(numbers, dtype=np.float64)


def _renamed(detail: FieldError) -> FieldError:
    """Return the fault of a name with its place in this format."""
    pointer = (detail.pointer or "").replace("/feature_names", "/features").replace("/target_names", "/targets")
    return FieldError(detail.message, pointer=pointer)


def _pointer(path: str) -> str:
    """Return the JSON pointer of a path as msgspec writes it, such as `$.coefficients[0][1]`."""
    steps = re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", path)
    return "".join(f"/{name or index}" for name, index in steps if index != "...")
