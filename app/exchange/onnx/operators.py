"""Operators of ai.onnx that keep a model linear, as changes of symbols and linear maps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite, isnan, prod
from typing import Any, TypeAlias

import numpy as np

from app.errors import InvalidInput
from app.exchange.expression import Atom, Sum, added, product
from app.exchange.onnx.file import Node
from app.exchange.onnx.values import (
    NOT_LINEAR,
    Batched,
    Constant,
    Linear,
    Mask,
    Text,
    Value,
    bounded,
    is_constant,
    is_symbols,
    linear_of,
    mapped,
    multiplied,
    number_atom,
    sums_of,
    symbols_of,
    without_rows,
)
from app.regression.sufficient_statistics import Array

FLOAT, INT32, INT64, STRING, BOOL, DOUBLE = 1, 6, 7, 8, 9, 11  # codes of types of tensors


@dataclass
class Draft:
    """A feature of the graph, and what its nodes have shown of it."""

    name: str
    type: int
    levels: dict[str, None] = field(default_factory=dict)
    na: dict[str, None] = field(default_factory=dict)
    marks: frozenset[str] = frozenset()  # texts that the file's metadata calls marks of missing values
    fill: str | None = None  # level in place of missing values
    is_guarded: bool = False  # True if a row with an unknown level has no prediction
    has_zeros: bool = False  # True if all indicators of an unknown level are 0


@dataclass
class State:
    """Facts about the features, which nodes add to."""

    drafts: list[Draft] = field(default_factory=list)
    guarded: set[int] = field(default_factory=set)  # features whose missing values give NaN
    is_single: bool = False  # True if a coefficient has 32 bits

    def numbers(self, value: object) -> Array:
        """Return a constant as 64-bit numbers. Raises InvalidInput if it is none."""
        if not is_constant(value) or value.dtype.kind not in "fiub":
            raise InvalidInput(f"{NOT_LINEAR}, or an operator has no constant where one is expected.")
        self.is_single |= value.dtype == np.float32
        return value.astype(np.float64)


def mark_of(value: float) -> str:
    """Return a number as a text that marks a gap."""
    return str(int(value)) if value.is_integer() else repr(value)


Operator: TypeAlias = Callable[[State, Node, list[Any]], "Value | list[Value]"]


def _arithmetic(state: State, node: Node, inputs: list[Any]) -> Value:
    one, other = inputs
    if is_constant(one) and is_constant(other):
        bounded(*np.broadcast_shapes(one.shape, other.shape))
        with np.errstate(all="ignore"):
            result: Constant = _OF_NUMBERS[node.operator](state.numbers(one), state.numbers(other))
        return result
    if is_constant(one):
        return _with_constant(state, node.operator, other, one, is_first=True)
    if is_constant(other):
        return _with_constant(state, node.operator, one, other, is_first=False)
    if node.operator == "Div":
        raise InvalidInput(f"{NOT_LINEAR}: a division by a column.")
    if node.operator == "Mul":
        return mapped(lambda left, right: product([left, right]), sums_of(one), sums_of(other))
    if is_symbols(one) and is_symbols(other):
        sign = -1.0 if node.operator == "Sub" else 1.0
        return mapped(lambda left, right: added([left, right.times(sign)]), sums_of(one), sums_of(other))
    second = linear_of(other)
    return linear_of(one).added(second.times(np.array(-1.0)) if node.operator == "Sub" else second)


_OF_NUMBERS: Mapping[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
}


def _with_constant(state: State, operator: str, value: Value, constant: Constant, *, is_first: bool) -> Value:
    """Return a value with a constant added, subtracted, multiplied or divided."""
    numbers = state.numbers(constant)
    rank = len(value.inner) if isinstance(value, Linear) else sums_of(value).ndim
    numbers = without_rows(numbers, rank)
    if numbers.ndim > max(rank, 0):
        raise InvalidInput("The graph combines columns with a constant that has a value for each row.")
    factors, terms = np.array(1.0), np.array(0.0)
    if operator in ("Add", "Sub"):
        terms = -numbers if operator == "Sub" and not is_first else numbers
        factors = np.array(-1.0) if operator == "Sub" and is_first else factors
    elif operator == "Div" and is_first:
        raise InvalidInput(f"{NOT_LINEAR}: a division by a column.")
    else:
        with np.errstate(all="ignore"):
            factors = 1 / numbers if operator == "Div" else numbers
    if isinstance(value, Linear):
        bounded(len(value.columns), *np.broadcast_shapes(value.inner, numbers.shape))
        return value.times(factors).plus(terms)
    return mapped(_changed, sums_of(value), factors, terms)


def _changed(one: Sum, factor: float, term: float) -> Sum:
    one = one if factor == 1 else one.times(factor)
    return one.plus(term) if term else one


def _matmul(state: State, _node: Node, inputs: list[Any]) -> Value:
    return multiplied(inputs[0], state.numbers(inputs[1]))


def _gemm(state: State, node: Node, inputs: list[Any]) -> Value:
    """Return alpha A B + beta C."""
    of = node.attributes
    if of.get("transA", 0):
        raise InvalidInput("The graph transposes the rows in Gemm, which is not supported.")
    coefficients = state.numbers(inputs[1])
    coefficients = (coefficients.T if of.get("transB", 0) else coefficients) * of.get("alpha", 1.0)
    result = multiplied(inputs[0], coefficients)
    if len(inputs) < 3 or inputs[2] is None:  # noqa: PLR2004 - C is the third input
        return result
    return _with_constant(state, "Add", result, state.numbers(inputs[2]) * of.get("beta", 1.0), is_first=False)


def _identity(_state: State, _node: Node, inputs: list[Any]) -> Value:
    value: Value = inputs[0]
    return value


def _cast(state: State, node: Node, inputs: list[Any]) -> Value:
    value, to = inputs[0], node.attributes.get("to")
    if is_constant(value):
        types = {FLOAT: np.float32, DOUBLE: np.float64, INT64: np.int64, INT32: np.int32, BOOL: bool, STRING: object}
        if value.dtype == object or to == STRING or to not in types:
            raise InvalidInput("The graph casts a constant to or from text, which is not supported.")
        with np.errstate(all="ignore"):
            cast: Constant = value.astype(types[to])
        return cast
    if isinstance(value, Linear):
        if to not in (FLOAT, DOUBLE):
            raise InvalidInput(f"{NOT_LINEAR}: it rounds a result.")
        return value
    return mapped(lambda element: _cast_element(state, element, to), value)


def _cast_element(state: State, element: Any, to: int | None) -> Sum | Text | Mask:
    if isinstance(element, frozenset) and to in (FLOAT, DOUBLE, INT32, INT64):
        (condition, *others) = element
        if not others and condition.value is not None and isnan(condition.value):
            return Sum.of(Atom(condition.feature, "missing"))
    if isinstance(element, Text) and to == STRING:
        return element
    atom = number_atom(element)
    whole = atom is not None and state.drafts[atom.feature].type in (INT32, INT64, BOOL)
    if isinstance(element, Sum):
        if to in (FLOAT, DOUBLE) or (to in (INT32, INT64) and _is_whole(element)):
            return element
        if atom is not None and (to in (INT32, INT64) or (to == STRING and whole)):
            return Text(atom.feature)
    raise InvalidInput(f"{NOT_LINEAR}: it casts values of a column to another type.")


def _is_whole(one: Sum) -> bool:
    """Return True if a sum is an indicator, which no cast to integers changes."""
    return one.atom is not None and one.atom.is_indicator


def _power(state: State, _node: Node, inputs: list[Any]) -> Value:
    exponents = state.numbers(inputs[1])
    base = sums_of(inputs[0])
    return mapped(_to_power, base, without_rows(exponents, base.ndim))


def _to_power(one: Sum, exponent: float) -> Sum:
    if exponent != int(exponent) if isfinite(exponent) else True:
        raise InvalidInput(f"{NOT_LINEAR}: a power that is not a whole number.")
    return one.power(int(exponent)) if exponent else Sum({}, 1.0)


def _reduce_prod(_state: State, node: Node, inputs: list[Any]) -> Value:
    axes = inputs[1] if len(inputs) > 1 and inputs[1] is not None else node.attributes.get("axes")
    base = sums_of(inputs[0])
    if axes is None or [int(axis) for axis in np.ravel(axes)] not in ([1], [-1]) or base.ndim != 1:
        raise InvalidInput("The graph has a ReduceProd over an axis other than the columns, which is not supported.")
    return symbols_of([product(base.tolist())], (1,) if node.attributes.get("keepdims", 1) else ())


def _shape(_state: State, _node: Node, inputs: list[Any]) -> Value:
    if is_symbols(inputs[0]):
        return Batched(inputs[0].shape)
    raise InvalidInput("The graph takes the shape of a result or a constant, which is not supported.")


def _constant_of_shape(state: State, node: Node, inputs: list[Any]) -> Value:
    value = np.ravel(state.numbers(node.attributes.get("value", np.zeros(1))))
    if not isinstance(inputs[0], Batched) or len(value) != 1:
        raise InvalidInput("The graph makes a constant with a shape that is not known before it runs.")
    count = prod(inputs[0].inner)
    return symbols_of([Sum({}, float(value[0]))] * count, inputs[0].inner)


def _constant(_state: State, node: Node, _inputs: list[Any]) -> Value:
    for name, dtype in (("value", None), ("value_float", np.float32), ("value_int", np.int64)):
        if name in node.attributes:
            return np.asarray(node.attributes[name], dtype)
    for name, dtype in (("value_floats", np.float32), ("value_ints", np.int64)):
        if name in node.attributes:
            return np.asarray(node.attributes[name]).astype(dtype)
    raise InvalidInput("The graph has a constant without a supported value.")


OPERATORS: Mapping[str, Operator] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Identity": _identity,
    "Cast": _cast,
    "Pow": _power,
    "ReduceProd": _reduce_prod,
    "Shape": _shape,
    "ConstantOfShape": _constant_of_shape,
    "Constant": _constant,
}
