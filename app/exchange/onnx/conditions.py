"""Operators of ai.onnx that find missing values and unknown levels, and replace them by constants."""

from collections.abc import Mapping
from math import isfinite, isnan
from typing import Any

import numpy as np

from app.errors import InvalidInput
from app.exchange.expression import Atom, Sum
from app.exchange.onnx.file import Node
from app.exchange.onnx.operators import Operator, State, mark_of
from app.exchange.onnx.values import (
    NOT_LINEAR,
    Condition,
    Linear,
    Mask,
    Symbols,
    Text,
    Value,
    is_constant,
    is_symbols,
    mapped,
    number_atom,
    without_rows,
)
from app.exchange.pieces import count_pieces


def _is_nan(_state: State, _node: Node, inputs: list[Any]) -> Value:
    return mapped(lambda element: _condition(element, np.nan), _elements(inputs[0]))


def _equal(state: State, _node: Node, inputs: list[Any]) -> Value:
    one, other = inputs if is_constant(inputs[1]) else inputs[::-1]
    return mapped(_condition, _elements(one), state.numbers(other))


def _condition(element: object, value: float) -> Mask:
    atom = number_atom(element)
    if atom is None:
        raise InvalidInput(f"{NOT_LINEAR}: it compares values that are not those of a feature.")
    return frozenset([Condition(atom.feature, float(value))])


def _less(state: State, _node: Node, inputs: list[Any]) -> Value:
    """Return the rows whose level has a negative code."""
    if not is_constant(inputs[1]) or (state.numbers(inputs[1]) != 0).any():
        raise InvalidInput(f"{NOT_LINEAR}: it compares values that are not codes of levels with 0.")
    return mapped(_without_code, _elements(inputs[0]))


def _without_code(element: object) -> Mask:
    if not isinstance(element, Text) or element.codes is None:
        raise InvalidInput(f"{NOT_LINEAR}: it compares values that are not codes of levels with 0.")
    count_pieces(len(element.codes))
    texts = frozenset(label for label, code in element.codes.items() if isinstance(code, int) and code < 0)
    return frozenset(
        [Condition(element.feature, None, texts, isinstance(element.default, int) and element.default < 0)]
    )


def _or(_state: State, _node: Node, inputs: list[Any]) -> Value:
    for value in inputs:
        if not is_symbols(value) or not all(isinstance(element, frozenset) for element in value.flat):
            raise InvalidInput(f"{NOT_LINEAR}: it has conditions other than those of missing values.")
    return mapped(_either, *inputs)


def _either(one: Mask, other: Mask) -> Mask:
    count_pieces(len(one) + len(other))
    return one | other


def _elements(value: Value) -> Symbols:
    if not is_symbols(value):
        raise InvalidInput(f"{NOT_LINEAR}: it compares values that are not those of a feature.")
    return value


def _where(state: State, _node: Node, inputs: list[Any]) -> Value:
    """Return the third input, with another constant for missing values, or NaN for rows without a prediction."""
    mask, replacement, value = inputs
    if not is_symbols(mask) or not is_constant(replacement) or is_constant(value):
        raise InvalidInput(f"{NOT_LINEAR}: it has a condition that is not one of missing values.")
    number = replacement.astype(np.float64)
    if isinstance(value, Linear):
        if not np.isnan(number).all():
            raise InvalidInput(f"{NOT_LINEAR}: it has a condition on a result.")
        for element in mask.flat:
            _guard(state, element)
        return value
    return mapped(lambda *elements: _replaced(state, *elements), mask, without_rows(number, value.ndim), value)


def _replaced(state: State, mask: object, replacement: float, element: object) -> Sum:
    atom = number_atom(element)
    if isinstance(mask, frozenset) and atom is not None and {condition.feature for condition in mask} == {atom.feature}:
        if isnan(replacement):
            _guard(state, mask)
            return Sum.of(atom)
        values = [condition.value for condition in mask]
        if all(value is not None and isnan(value) for value in values) and isfinite(replacement):
            return Sum.of(Atom(atom.feature, "filled", replacement))
    raise InvalidInput(f"{NOT_LINEAR}: it has a condition that is not one of missing values.")


def _guard(state: State, mask: object) -> None:
    """Note which values have no prediction."""
    if not isinstance(mask, frozenset):
        raise InvalidInput(f"{NOT_LINEAR}: it has a condition that is not one of missing values.")
    for condition in mask:
        draft = state.drafts[condition.feature]
        state.guarded.add(condition.feature)
        if condition.value is None:
            draft.is_guarded |= condition.unknown
            draft.na |= dict.fromkeys(text for text in condition.texts if text)
        elif not isnan(condition.value):
            draft.na[mark_of(condition.value)] = None


CONDITIONS: Mapping[str, Operator] = {"IsNaN": _is_nan, "Equal": _equal, "Less": _less, "Or": _or, "Where": _where}
