"""Predictions for tables: batches of rows in, and a table out, in the same format or in another."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from app.data.batch import Columns, RowBatch, Source, row_error, split_wide, wide_batch_bytes
from app.data.columns.dialect import with_thousands
from app.data.columns.encoder import Notes
from app.data.columns.options import ReadingOptions
from app.data.columns.schema import Column, TableSchema
from app.data.content import explained
from app.data.encoded_table import ColumnsToEncode, as_sent, encoded_batches
from app.data.formats.base import ResultFormat, TableFormat, TableWriter
from app.data.formats.json import JsonDocumentWriter
from app.data.json_encoder import JsonEncoder
from app.data.json_faults import escaped
from app.data.json_rows import kept_columns, without_kept
from app.data.names import listed, shown
from app.data.reading import read_file
from app.errors import FieldError, InvalidInput, PredictionTooLarge
from app.prediction.missing_rows import Reasons
from app.prediction.predictor import Observer, PredictionResult, Predictor
from app.prediction.query import (
    WEIGHT_NOT_POSITIVE,
    PredictionOptions,
    PredictionQuery,
    intervals_unavailable,
    weights_unavailable,
)
from app.registry.version_file import Version
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array
from app.storage.spooled_output import SpooledOutput

_READ_FACTOR = 3  # Bytes that a batch takes while it is read, per byte of its numbers.
_NUMBER_BYTES = 8
_JSON_BYTES = 30  # Bytes of a number in JSON with its punctuation.
_POINTER = "/instances"


@dataclass(frozen=True)
class TableOptions:
    """How a table is read, which of its columns pass through, and what is computed for its rows."""

    prediction: PredictionOptions = field(default_factory=PredictionOptions)
    keep: Sequence[str] = ()  # Columns that pass through to the results.
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    weights: str | None = None  # Column of the rows' precision weights.
    targets: bool = False  # True if the targets are read too. A gap in them is NaN, or refused with the others.
    others: bool = False  # True if the table may have any further columns, which are not read.

    def columns(self, table: TableSchema) -> tuple[Column, ...]:
        """Return the columns that are read: the features, the targets, then the weights unless they are one of them."""
        targets = [replace(column, missing="drop", fill=None) for column in table.targets] if self.targets else []
        columns = (*table.features, *targets)
        if self.weights is None or any(column.name == self.weights for column in columns):
            return columns
        own = table.weight if table.weight is not None and table.weight.name == self.weights else Column(self.weights)
        return (*columns, replace(own, missing="drop", fill=None))


@dataclass
class TableRows:
    """The rows of a decompressed table, whose columns are the features and those to keep, in any order.

    The table may also have the columns that the version ignores; a file without a header may have any others. They are
    not read. A missing value is NaN unless the options refuse it.
    """

    content: Source
    table_format: TableFormat
    version: Version
    options: TableOptions
    reserve: Callable[[int], None]  # Called with the bytes that reading takes before they are allocated.
    reasons: Reasons = field(default_factory=Reasons)  # Why rows that were encoded have no results.

    def __post_init__(self) -> None:
        """Find the dialect of the file. Raises InvalidInput."""
        known, reading = self.version.table.dialect, self.options.reading
        with explained(self.content, self.table_format):
            self.reserve(self.table_format.metadata_bytes(self.content))
            signs = with_thousands(reading, self.options.columns(self.version.table))
            self.dialect = self.table_format.dialect(self.content, signs, known)
        is_untyped, is_text = self.table_format.has_untyped_text, self.table_format.is_text
        decimals = {known.decimal: self.dialect.decimal} if is_untyped else {}
        self._columns = [
            as_sent(column, reading, decimals.get(column.decimal, column.decimal))
            for column in self.options.columns(self.version.table)
        ]
        # A workbook's cells of numbers may be text.
        self._is_plain = (is_text or not is_untyped) and all(
            column.is_plain and (column.decimal == self.dialect.decimal if is_untyped else not column.strings)
            for column in self._columns
        )

    def prediction(self) -> "TablePrediction":
        """Return the prediction for these rows."""
        uncounted = [column.name for column in self._columns] if self._is_plain else ()
        first_row = self.table_format.first_row(self.dialect)
        return TablePrediction(self.version, self.options, first_row, self.reasons, uncounted)

    def batches(self, max_bytes: int) -> Iterator[RowBatch]:
        """Yield the rows, encoded.

        Raises InvalidInput, or BodyTooLarge if the table expands to more than an upload of `max_bytes` may.
        """
        options, names = self.options, [column.name for column in self._columns]
        read = Columns(
            names,
            options.keep,
            missing=options.prediction.missing != "refuse",
            # Without a header, the position of a column is its name, so the columns between the features are allowed.
            only=self.dialect.header != "none" and not options.others,
            ignored=self.version.ignored,
            dialect=self.dialect,
            training=False,
        )
        encoded = read._replace(numbers=[name for column in self._columns for name in column.encoded_names])
        with explained(self.content, self.table_format, self.dialect):
            self.reserve(_READ_FACTOR * wide_batch_bytes(encoded))
            self.reserve(self.table_format.check_size(self.content, [*names, *options.keep], max_bytes))
        if self._is_plain:
            yield from read_file(self.content, self.table_format, read)
            return
        refuse, unknown = options.prediction.missing == "refuse", options.prediction.unknown
        encode, notes = ColumnsToEncode(self._columns, options.keep, unknown, refuse), Notes()
        yield from encoded_batches(self.content, self.table_format, read, encode, notes)
        self.reasons.add_notes(notes, self._columns, unknown)


def batches_of_rows(
    rows: Sequence[Any], encoder: JsonEncoder, version: Version, options: TableOptions, reasons: Reasons
) -> Iterator[RowBatch]:
    """Yield rows decoded from JSON, and add why some have no results.

    The encoder has the columns of `options.columns`. Raises InvalidInput.
    """
    others = without_kept(rows, options.keep, _POINTER)
    if not set(encoder.names).isdisjoint(options.keep):
        others = without_kept(rows, [name for name in options.keep if name not in encoder.names], _POINTER)
    missing, unknown = options.prediction.missing == "null", options.prediction.unknown
    codes, unseen = encoder.read(others, _POINTER, missing=missing, unknown=unknown, ignored=version.ignored)
    reasons.add(codes, encoder.names, unseen)
    kept = kept_columns(rows, options.keep)
    size = encoder.rows_at_once
    for start in range(0, len(rows), size):
        own = None if kept is None else kept.slice(start, min(size, len(rows)))
        yield RowBatch(encoder.design(codes[start : start + size]), own)


@dataclass
class TablePrediction:
    """Predicts for the batches of a table and writes the results. `rows` and `missing` count what was written.

    The whole table is written before its first byte is sent, so that a fault in the last row is reported with its
    place, as a fault in the first row is. Rows decoded from JSON have no `first_row`.
    """

    version: Version
    options: TableOptions
    first_row: int | None = None
    reasons: Reasons = field(default_factory=Reasons)  # Why rows have no results.
    uncounted: Sequence[str] = ()  # Columns whose gaps are still to be added to `reasons`.
    rows: int = 0
    missing: int = 0
    observer: Observer | None = None
    # Called with each part of the rows that was predicted: the query, the columns that pass through, and the result.
    observe: Callable[[PredictionQuery, Any, PredictionResult], None] | None = None

    def write(self, batches: Iterator[RowBatch], result_format: ResultFormat | None, output: SpooledOutput) -> None:
        """Write the results for all batches, in JSON if there is no format. Discards the output on an error.

        Raises InvalidInput.
        Raises BodyTooLarge if the table is longer than the output may be.
        Raises Unavailable if the output cannot be stored.
        """
        model, options = self.version.model, self.options
        names = result_names(self.version, options)
        check_options(self.version, options)
        names_in_rows = result_format is None or result_format.names_in_rows
        row_bytes = _row_bytes(model, options, names, names_in_rows=names_in_rows)
        writer = self._writer(result_format, output, names)
        with contextlib.ExitStack() as on_error:
            on_error.callback(output.discard)
            for batch in batches:
                first = None if self.first_row is None else self.first_row + self.rows
                for values, kept, *_ in split_wide(batch, row_bytes, first):
                    query = self._query(values)
                    result = self._predict(query)
                    if self.observe is not None:
                        self.observe(query, kept, result)
                    writer.write(kept, result_columns(result))
                    self.rows += len(values)
                    self.missing += result.rows.missing
                    if result.rows.missing and self.uncounted:
                        self.reasons.add(values, self.uncounted)
            writer.close()
            on_error.pop_all()
        if self.observer is not None and self.missing:
            self.observer.note_missing(self.version, +self.reasons.gaps, self.reasons.unseen)

    def _writer(self, result_format: ResultFormat | None, output: SpooledOutput, names: Sequence[str]) -> TableWriter:
        if result_format is not None:
            return result_format.writer(output, self.options.keep, names)
        document = {"model": self.version.card.model, "version": self.version.card.version}
        return JsonDocumentWriter(output, self.options.keep, names, document)

    def _query(self, values: Array) -> PredictionQuery:
        """Return the query for encoded rows. Raises InvalidInput if a weight is not positive."""
        model = self.version.model
        x, weights = values[:, : len(model.features)], None
        if self.options.weights is not None:
            names = (*model.features, self.options.weights)
            weights = values[:, names.index(self.options.weights)]
            self._check_positive(x, weights)
        return PredictionQuery(x, self.options.prediction, weights)

    def _predict(self, query: PredictionQuery) -> PredictionResult:
        try:
            return Predictor(self.version, self.observer).predict(query)
        except PredictionTooLarge as error:
            row = self.rows + error.row
            if self.first_row is None:
                raise PredictionTooLarge(row, _POINTER) from None
            raise row_error(error.message, row=self.first_row + row) from None

    def _check_positive(self, x: Array, weights: Array) -> None:
        if not (weights <= 0).any():
            return
        at_fault = np.flatnonzero((weights <= 0) & ~np.isnan(x).any(axis=1))
        if not len(at_fault):
            return
        row, column = self.rows + int(at_fault[0]), self.options.weights or ""
        if self.first_row is None:
            raise InvalidInput.at(f"{_POINTER}/{row}/{escaped(column)}", WEIGHT_NOT_POSITIVE)
        raise row_error(WEIGHT_NOT_POSITIVE, row=self.first_row + row, column=column)


def _row_bytes(model: LinearModel, options: TableOptions, names: Sequence[str], *, names_in_rows: bool) -> int:
    """Return the most bytes that the results of one row take while they are made."""
    values = max(len(model.features) + 1, len(model.columns), len(names) + len(options.keep))
    text = sum(len(name) + _JSON_BYTES for name in [*options.keep, *names]) if names_in_rows else 0
    return max(_NUMBER_BYTES * values, text)


def result_names(version: Version, options: TableOptions) -> Sequence[str]:
    """Return the names of the columns of results. A prediction has its target's name, unless the target is kept.

    Raises InvalidInput if two columns would have the same name.
    """
    model = version.model
    numbers = [column.name for column in version.table.features if column.kind == "number"]
    predictions = [f"predicted_{target}" if target in options.keep else target for target in model.targets]
    names = list(predictions)
    if options.prediction.interval is not None:
        names += [f"{prediction}_{side}" for prediction in predictions for side in ("lower", "upper")]
    if options.prediction.confidence is not None:
        names += [f"{prediction}_mean_{side}" for prediction in predictions for side in ("lower", "upper")]
    counts = Counter([*options.keep, *names, *numbers])
    repeated = sorted({name for name in options.keep if counts[name] > 1})
    if repeated or len(set(names)) < len(names):
        if features := [name for name in options.keep if name in numbers]:
            message = f"{listed(features)} cannot be kept: features are read as numbers. Leave them out of `keep`."
            raise InvalidInput.of_parameter("keep", message)
        details = [FieldError("The results have another column of this name.", column=name) for name in repeated]
        raise InvalidInput("Two columns of the results would have the same name.", details)
    return names


def check_options(version: Version, options: TableOptions) -> None:
    """Raise InvalidInput for an option that the model or the other options do not allow."""
    model = version.model
    if refused := intervals_unavailable(model, options.prediction):
        option = "confidence" if options.prediction.interval is None else "interval"
        raise InvalidInput.of_parameter(option, refused)
    if options.weights is not None and (refused := weights_unavailable(model, options.prediction)):
        raise InvalidInput.of_parameter("instance_weights", refused)
    if any(column.name == options.weights and column.kind != "number" for column in version.table.features):
        message = f"{shown(options.weights or '')} is not a column of numbers. Expected the weight of each row."
        raise InvalidInput.of_parameter("instance_weights", message)


def result_columns(result: PredictionResult) -> Array:
    """Return predictions and bounds side by side, (n, number of names). A bound that does not exist is NaN."""
    bounds = [bounds for bounds in (result.intervals, result.confidence_intervals) if bounds is not None]
    if not bounds:
        return result.predictions
    n = len(result.predictions)
    return np.hstack([result.predictions, *(each.reshape(n, 2 * each.shape[1]) for each in bounds)])
