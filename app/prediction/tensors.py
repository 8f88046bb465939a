"""Tensors as rows to predict for, and results as tensors.

The rows are one tensor (n, p) with the columns in the model's order, or one tensor for each feature. The results have
the same form: `predict` (n, k), or one tensor (n, 1) for each target.
"""

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Any

import numpy as np

from app.data.names import did_you_mean, listed, shown
from app.data.tensors import BYTES, DATATYPES, MAX_RANK, Tensor
from app.errors import InvalidInput
from app.prediction.predictor import PredictionResult
from app.prediction.query import PredictionOptions
from app.registry.version_file import Version
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array

PREDICT = "predict"  # Name of the results for all targets in one tensor.
BASELINE = "_baseline"
NOT_NUMBERS = (BYTES, "BOOL")
MISSING = (
    "The value is missing: it is NaN, or null in JSON. Send a number, or set the parameter `missing` to `null` to get "
    "NaN as the result of this row."
)


def is_by_feature(tensors: Sequence[Tensor], version: Version) -> bool:
    """Return True if each tensor has the values of one feature."""
    first = tensors[0]
    is_column = len(first.shape) == 1 or first.shape[1] == 1
    return len(tensors) > 1 or (is_column and first.name in version.encoder.names)


def to_rows(tensors: Sequence[Tensor], version: Version, *, missing: bool) -> list[Any] | Array:
    """Return the rows of a query: a matrix (n, p) if all values are numbers that are their own codes, or else lists.

    If values may be `missing`, NaN is a gap. Raises InvalidInput with the tensor and the index of a wrong value.
    """
    columns = _columns(tensors, version) if is_by_feature(tensors, version) else [_whole(tensors[0], version)]
    names = version.encoder.names
    if version.encoder.is_plain:
        for tensor in columns:
            _check_numbers(tensor)
        matrix = _matrix(columns, len(names))
        if not np.isnan(matrix).any():
            return matrix
        if not missing:
            tensor, position = next((each, gap) for each in columns if (gap := each.gap()) is not None)
            raise tensor.fault(MISSING, position)
    else:
        numbers = [column.refuses_strings for column in version.table.features]
        if len(columns) == len(names):
            for tensor in compress(columns, numbers):
                _check_text(tensor)
        elif columns[0].datatype == BYTES and any(numbers):
            raise columns[0].fault(
                f"{shown(next(compress(names, numbers)))} is a number. Send one tensor for each feature."
            )
    if len(columns) == len(names):
        return list(map(list, zip(*(tensor.objects() for tensor in columns), strict=True)))
    values, width = columns[0].objects(), len(names)
    return [values[start : start + width] for start in range(0, len(values), width)]


def _columns(tensors: Sequence[Tensor], version: Version) -> list[Tensor]:
    """Return the tensors of the features in the model's order. Raises InvalidInput unless each feature has one."""
    names, by_name = version.encoder.names, {tensor.name: tensor for tensor in tensors}
    known = frozenset(names)
    for tensor in tensors:
        if tensor.name in known:
            if len(tensor.shape) == MAX_RANK and tensor.shape[1] != 1:
                raise tensor.fault(f"Expected the shape [n] or [n, 1], found {list(tensor.shape)}.")
        elif tensor.name not in version.ignored:
            meant = did_you_mean(tensor.name, names)
            raise tensor.fault(f"The model has no such feature.{meant} Features: {listed(names)}.")
    if without := [name for name in names if name not in by_name]:
        message = (
            f"There is no tensor for {listed(without)}. Send one for each feature, or one for all: [n, {len(names)}]."
        )
        raise InvalidInput.at("/inputs", message)
    columns = [by_name[name] for name in names]
    for tensor in columns:
        if tensor.shape[0] != columns[0].shape[0]:
            first = columns[0]
            message = f"The tensor has {tensor.shape[0]} row(s), and {shown(first.name)} has {first.shape[0]}."
            raise tensor.fault(message)
    return columns


def _whole(tensor: Tensor, version: Version) -> Tensor:
    """Return the tensor of all features. Raises InvalidInput if its shape does not fit."""
    names = version.encoder.names
    width = tensor.shape[1] if len(tensor.shape) == MAX_RANK else 1
    if width != len(names):
        found = f"found {list(tensor.shape)}. The columns are {listed(names)}."
        raise tensor.fault(f"Expected the shape [n, {len(names)}], {found} Or send one tensor for each feature.")
    return tensor


def _check_numbers(tensor: Tensor) -> None:
    if tensor.datatype == "BOOL":
        raise tensor.fault("Expected numbers, found BOOL. Send 1 or 0 as INT8.")
    _check_text(tensor)


def _check_text(tensor: Tensor) -> None:
    if tensor.datatype == BYTES:
        numbers = ", ".join(name for name in DATATYPES if name not in NOT_NUMBERS)
        raise tensor.fault(f"Expected numbers, found BYTES. Send numbers as one of {numbers}.")


def _matrix(columns: Sequence[Tensor], width: int) -> Array:
    """Return numbers as float64, (n, width)."""
    if len(columns) == 1:
        return np.asarray(columns[0].values, np.float64).reshape(-1, width)
    matrix = np.empty((columns[0].shape[0], width))
    for index, tensor in enumerate(columns):
        matrix[:, index] = tensor.values
    return matrix


def output_names(model: LinearModel, options: PredictionOptions, *, by_target: bool) -> tuple[list[str], list[str]]:
    """Return the names of the default outputs, and of the other outputs that a request may name.

    If a target is named like the output for all targets, only the outputs for each target exist.
    """
    whole = [f"{PREDICT}{suffix}" for suffix in _suffixes(options)]
    parts = [f"{target}{suffix}" for suffix in _suffixes(options) for target in model.targets]
    if PREDICT in model.targets:
        return parts, []
    return (parts, whole) if by_target else (whole, parts)


def _suffixes(options: PredictionOptions) -> Iterator[str]:
    """Yield the ends of the names of the results: those of a table's columns."""
    yield ""
    if options.interval is not None:
        yield from ("_lower", "_upper")
    if options.confidence is not None:
        yield from ("_mean_lower", "_mean_upper")
    if options.explain:
        yield from (BASELINE, "_contributions")


def to_outputs(result: PredictionResult) -> dict[str, Array]:
    """Return all results by their names, in both forms. A target's own name wins over any other."""
    model, arrays = result.version.model, {"": result.predictions}
    for mean, bounds in (("", result.intervals), ("_mean", result.confidence_intervals)):
        if bounds is not None:
            arrays |= {f"{mean}_lower": bounds[..., 0], f"{mean}_upper": bounds[..., 1]}
    if result.contributions is not None:
        arrays |= {"_contributions": result.contributions, BASELINE: model.mean_prediction}
    outputs = {}
    for suffix, array in reversed(arrays.items()):
        outputs[f"{PREDICT}{suffix}"] = array
        for index, target in enumerate(model.targets):
            part = slice(index, index + 1)
            outputs[f"{target}{suffix}"] = array[part] if suffix == BASELINE else array[:, part]
    if result.contributions is not None:
        outputs |= {
            f"{target}_contributions": result.contributions[:, index] for index, target in enumerate(model.targets)
        }
    return outputs | {target: result.predictions[:, index : index + 1] for index, target in enumerate(model.targets)}
