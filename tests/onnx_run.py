"""Predictions of onnxruntime, for rows as JSON has them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from app.data.columns.dates import date_of
from app.data.columns.schema import Column
from app.exchange.column_marks import fills_gaps
from app.registry.version_file import Version

Array = NDArray[np.float64]


def predictions_of_onnx(content: bytes, version: Version, rows: Sequence[Mapping[str, Any]]) -> Array:
    """Return the predictions (n, k) for rows that have every feature, some of them None."""
    return run_onnx(content, {column.name: tensor_of(column, rows) for column in version.table.features})


def run_onnx(content: bytes, inputs: Mapping[str, Any]) -> Array:
    """Return the first output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(inputs))[0])


def tensor_of(column: Column, rows: Sequence[Mapping[str, Any]]) -> NDArray[Any]:
    """Return the values of a feature, (n, 1), as a caller of the file prepares them."""
    values = [row[column.name] for row in rows]
    if column.kind == "category":
        return np.array([["" if value is None else value] for value in values], object)
    if column.kind == "boolean" and not fills_gaps(column):
        return np.array([[value] for value in values], bool)
    if column.kind == "date":
        return np.array([[date_of(value, column)] for value in values], np.float64)
    return np.array([[np.nan if value is None else value] for value in values], np.float64)
