"""Operators of ONNX that only move elements of a row: its shape, its order, and parts of it."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidInput
from app.exchange.onnx.file import Node
from app.exchange.onnx.operators import Operator, State
from app.exchange.onnx.values import Linear, Value, bounded, few, is_constant, is_symbols, linear_of

_ROWS = "The graph changes the order or the number of the rows, which is not supported."


def _moved(value: Value, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Value:
    """Return a value with the elements of a row moved by a function of the elements' array."""
    try:
        if isinstance(value, Linear):
            return value.reshaped(change)
        if is_symbols(value):
            return change(value)
    except (IndexError, ValueError):
        raise InvalidInput("The graph takes columns that it does not have, or gives a row a shape too small.") from None
    raise InvalidInput("The graph changes the shape of a constant, which is not supported.")


def _inner(value: Value) -> tuple[int, ...]:
    """Return the shape of a row."""
    if isinstance(value, Linear):
        return value.inner
    if not is_symbols(value):
        raise InvalidInput("The graph changes the shape of a constant, which is not supported.")
    return value.shape


def _rank(value: Value) -> int:
    """Return the number of axes of a row."""
    return len(_inner(value))


def _axis(axis: int, rank: int) -> int:
    """Return the axis of a row for an axis of the tensor, which has the rows first."""
    axis = int(axis) + (rank + 1 if axis < 0 else 0)
    if not 1 <= axis <= rank:
        raise InvalidInput(_ROWS)
    return axis - 1


def _integers(value: object) -> NDArray[np.int64]:
    if not is_constant(value) or value.dtype.kind not in "iu":
        raise InvalidInput("The graph has a shape or places that are not known before it runs.")
    return value.astype(np.int64)


def _reshape(_state: State, node: Node, inputs: list[Any]) -> Value:
    """Return a value with another shape of one row. The first entry of the shape is the number of rows."""
    shape = [int(length) for length in np.ravel(_integers(inputs[1]))]
    if not shape or shape[0] not in (-1, 0) or node.attributes.get("allowzero", 0) or 0 in shape[1:]:
        raise InvalidInput(f"{_ROWS} Expected a shape that begins with -1 or 0.")
    size = prod(_inner(inputs[0]))
    inner = shape[1:]
    if inner.count(-1) + (shape[0] == -1) > 1:
        raise InvalidInput(_ROWS)
    if -1 in inner:
        known = prod(length for length in inner if length != -1)
        inner[inner.index(-1)] = size // known if known > 0 and size % known == 0 else 0
    if any(length < 1 for length in inner) or prod(inner) != size:
        raise InvalidInput(_ROWS)
    return _moved(inputs[0], lambda array: array.reshape(inner))


def _flatten(_state: State, node: Node, inputs: list[Any]) -> Value:
    if node.attributes.get("axis", 1) != 1:
        raise InvalidInput(_ROWS)
    return _moved(inputs[0], lambda array: array.reshape(-1))


def _axes_of(node: Node, inputs: list[Any]) -> list[int]:
    axes = inputs[1] if len(inputs) > 1 and inputs[1] is not None else node.attributes.get("axes")
    if axes is None:
        raise InvalidInput(_ROWS)
    return [int(axis) for axis in np.ravel(axes)]


def _squeeze(_state: State, node: Node, inputs: list[Any]) -> Value:
    axes = tuple(_axis(axis, _rank(inputs[0])) for axis in _axes_of(node, inputs))
    return _moved(inputs[0], lambda array: np.squeeze(array, axes))


def _unsqueeze(_state: State, node: Node, inputs: list[Any]) -> Value:
    axes = _axes_of(node, inputs)
    rank = _rank(inputs[0]) + len(axes)
    if rank > 4:  # noqa: PLR2004 - no supported operator takes more axes
        raise InvalidInput("The graph has tensors of more than five axes, which are not supported.")
    places = tuple(_axis(axis, rank) for axis in axes)
    return _moved(inputs[0], lambda array: np.expand_dims(array, places))


def _gather(_state: State, node: Node, inputs: list[Any]) -> Value:
    places = _integers(inputs[1])
    axis = _axis(node.attributes.get("axis", 0), _rank(inputs[0]))
    return _taken(inputs[0], places, axis)


def _taken(value: Value, places: NDArray[np.int64], axis: int) -> Value:
    size = prod(_inner(value))
    if isinstance(value, Linear):
        bounded(len(value.columns), size, places.size)
    else:
        few(size * places.size // max(1, _inner(value)[axis]))
    return _moved(value, lambda array: np.take(array, places, axis))


def _extract(_state: State, _node: Node, inputs: list[Any]) -> Value:
    """Return columns of the last axis, as ArrayFeatureExtractor does."""
    rank = _rank(inputs[0])
    return _taken(inputs[0], np.ravel(_integers(inputs[1])), _axis(rank, rank))


def _split(_state: State, node: Node, inputs: list[Any]) -> list[Value]:
    axis = _axis(node.attributes.get("axis", 0), _rank(inputs[0]))
    value = inputs[0]
    width = _inner(value)[axis]
    lengths = inputs[1] if len(inputs) > 1 and inputs[1] is not None else node.attributes.get("split")
    if lengths is None:
        count = len(node.outputs)
        size = -(-width // max(count, 1))
        lengths = [size] * (width // size) + ([width % size] if width % size else [])
    ends = np.cumsum(np.ravel(lengths))
    if len(ends) != len(node.outputs) or ends[-1] != width or (np.ravel(lengths) < 0).any():
        raise InvalidInput("The graph splits rows into parts that are not as wide as the rows.")
    starts = [0, *ends[:-1].tolist()]
    return [_taken(value, np.arange(start, end), axis) for start, end in zip(starts, ends.tolist(), strict=True)]


def _slice(_state: State, _node: Node, inputs: list[Any]) -> Value:
    if len(inputs) < 3:  # noqa: PLR2004 - before opset 10, these were attributes
        raise InvalidInput("The graph has a Slice of an opset before 10, which is not supported.")
    starts, ends = np.ravel(_integers(inputs[1])), np.ravel(_integers(inputs[2]))
    value, rank = inputs[0], _rank(inputs[0])
    axes = np.ravel(_integers(inputs[3])) if len(inputs) > 3 and inputs[3] is not None else np.arange(len(starts))  # noqa: PLR2004
    steps = np.ravel(_integers(inputs[4])) if len(inputs) > 4 and inputs[4] is not None else np.ones(len(starts), int)  # noqa: PLR2004
    if not len(starts) == len(ends) == len(axes) == len(steps) or not steps.all():
        raise InvalidInput("The graph has a Slice whose starts, ends, axes and steps differ in number.")
    parts = {
        _axis(int(axis), rank): slice(int(start), int(end), int(step))
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)
    }
    places = tuple(parts.get(axis, slice(None)) for axis in range(rank))
    return _moved(value, lambda array: array[places])


def _concat(_state: State, node: Node, inputs: list[Any]) -> Value:
    return joined(inputs, node.attributes.get("axis", 1))


def joined(values: Sequence[Any], axis: int) -> Value:
    """Return values as one, along an axis of the tensor."""
    if all(is_constant(value) for value in values):
        bounded(sum(value.size for value in values))
        try:
            constant: NDArray[Any] = np.concatenate(values, axis)
        except ValueError:
            raise InvalidInput("The graph joins constants of different shapes.") from None
        return constant
    place = _axis(axis, _rank(values[0]))
    try:
        if all(is_symbols(value) for value in values):
            few(sum(value.size for value in values))
            symbols: NDArray[Any] = np.concatenate(values, place)
            return symbols
        return _joined_maps([linear_of(value) for value in values], place)
    except ValueError:
        raise InvalidInput("The graph joins rows of different shapes.") from None


def _joined_maps(maps: Sequence[Linear], axis: int) -> Linear:
    columns = np.concatenate([each.columns for each in maps])
    constant = np.concatenate([each.constant for each in maps], axis)
    bounded(len(columns), *constant.shape)
    coefficients = np.zeros((len(columns), *constant.shape))
    row = place = 0
    for each in maps:
        width = each.inner[axis]
        before = (slice(None),) * axis
        coefficients[(slice(row, row + len(each.columns)), *before, slice(place, place + width))] = each.coefficients
        row, place = row + len(each.columns), place + width
    return Linear(columns, coefficients, constant)


def _vectorize(_state: State, _node: Node, inputs: list[Any]) -> Value:
    """Join inputs, as FeatureVectorizer does."""
    return joined(inputs, 1)


SHAPE_OPERATORS: Mapping[str, Operator] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Gather": _gather,
    "Split": _split,
    "Slice": _slice,
    "Concat": _concat,
}
ML_SHAPE_OPERATORS: Mapping[str, Operator] = {"ArrayFeatureExtractor": _extract, "FeatureVectorizer": _vectorize}
