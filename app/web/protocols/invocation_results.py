"""Results of `/invocations` in the forms of MLflow and SageMaker."""

import io
from collections.abc import Sequence

import numpy as np
import orjson

from app.data.batch import Array
from app.data.formats.base import Output, ResultFormat, TableWriter
from app.data.formats.csv import CSV, CsvRowsWriter
from app.data.formats.json import JSON, rows_as_objects
from app.data.formats.ndjson import NDJSON
from app.prediction.predictor import PredictionResult
from app.prediction.query import PredictionOptions
from app.prediction.tables import TableOptions, result_columns, result_names

JSON_LINES = "application/jsonlines"


class Predictions:
    """MLflow's `{"predictions": [...]}`: a number for each row, an array of the targets, or an object with bounds."""

    names_in_rows = True

    def __init__(self, *, as_objects: bool) -> None:
        self._as_objects = as_objects

    def writer(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> TableWriter:
        assert not keep
        return _PredictionsWriter(file, names, as_objects=self._as_objects)


class _PredictionsWriter:
    def __init__(self, file: Output, names: Sequence[str], *, as_objects: bool) -> None:
        self._file, self._names, self._as_objects = file, names, as_objects
        self._separator = b""
        file.write(b'{"predictions":[')

    def write(self, _: object, values: Array) -> None:
        if len(values):
            self._file.write(self._separator)
            self._file.write(self._rows(values))
            self._separator = b","

    def _rows(self, values: Array) -> bytes | memoryview:
        if self._as_objects:
            return rows_as_objects(None, values, (), self._names, b",")
        rows = np.ascontiguousarray(values[:, 0] if len(self._names) == 1 else values)
        return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]

    def close(self) -> None:
        self._file.write(b"]}")


class CsvRows:
    """CSV without a header, as SageMaker's own containers answer."""

    names_in_rows = False

    def writer(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> TableWriter:
        assert not keep
        return CsvRowsWriter(file, names)


def result_format(media_type: str, options: PredictionOptions) -> ResultFormat:
    """Return the format of results with this media type."""
    has_bounds = options.interval is not None or options.confidence is not None
    if media_type == CSV.media_type:
        return CsvRows()
    return Predictions(as_objects=has_bounds) if media_type == JSON.media_type else NDJSON


def encode(result: PredictionResult, options: PredictionOptions, media_type: str) -> bytes:
    """Return a result whose options `check_options` has accepted as a body of this media type."""
    file = io.BytesIO()
    names = result_names(result.version, TableOptions(options))
    writer = result_format(media_type, options).writer(file, (), names)
    writer.write(None, result_columns(result))
    writer.close()
    return file.getvalue()
