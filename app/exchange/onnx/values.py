"""Values of the tensors of an ONNX graph, while a reader follows its nodes.

A tensor is a constant array, symbols, or a linear map of symbols. The first axis, of the rows, is not represented.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from app.data.names import MAX_NAMES
from app.errors import InvalidInput
from app.exchange.expression import Atom, Sum
from app.exchange.pieces import count_pieces
from app.regression.sufficient_statistics import Array

MAX_ELEMENTS = 10 * MAX_NAMES  # Symbols of one tensor.
MAX_WEIGHTS = 2_000_000  # Most coefficients of a linear map. A version has at most a tenth of them.
NOT_LINEAR = "The graph multiplies or compares columns in a way that is not linear"


@dataclass(frozen=True)
class Text:
    """A feature as a category. With codes, each level is a number or another text."""

    feature: int
    codes: Mapping[str, int | str] | None = None
    default: int | str | None = None  # code of an unknown level

    def labels(self, codes: Sequence[int | str]) -> list[list[str]]:
        """Return the levels that have each of these codes."""
        if self.codes is None:
            return [[str(code)] for code in codes]
        count_pieces(len(self.codes))
        found: dict[int | str, list[str]] = {code: [] for code in codes}
        for label, own in self.codes.items():
            if own in found:
                found[own].append(label)
        return [found[code] for code in codes]


@dataclass(frozen=True)
class Condition:
    """A feature is NaN, equals a number, or is one of some texts and perhaps unknown."""

    feature: int
    value: float | None = None  # NaN for missing values
    texts: frozenset[str] = frozenset()
    unknown: bool = False


Mask: TypeAlias = frozenset[Condition]  # true if at least one condition is true
Element: TypeAlias = Sum | Text | Mask
Symbols: TypeAlias = NDArray[np.object_]  # array of Element with the shape of one row
Constant: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Batched:
    """The shape of a tensor with its rows, as the operator Shape gives it."""

    inner: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Linear:
    """constant + coefficients' columns."""

    columns: Symbols  # (w,), sums
    coefficients: Array  # (w, *inner)
    constant: Array  # inner

    @property
    def inner(self) -> tuple[int, ...]:
        return self.constant.shape

    def reshaped(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> "Linear":
        """Return the map with the shape of one row changed, by a function that only moves elements."""
        places = change(np.arange(prod(self.inner)).reshape(self.inner))
        flat = self.coefficients.reshape(len(self.columns), -1)
        return Linear(self.columns, flat[:, places], self.constant.reshape(-1)[places])

    def times(self, other: Array) -> "Linear":
        factor = np.broadcast_to(other, np.broadcast_shapes(other.shape, self.inner))
        return Linear(self.columns, self.coefficients * factor, self.constant * factor)

    def plus(self, other: Array) -> "Linear":
        constant = self.constant + other
        coefficients = np.broadcast_to(self.coefficients, (len(self.columns), *constant.shape))
        return Linear(self.columns, coefficients, constant)

    def added(self, other: "Linear") -> "Linear":
        inner = np.broadcast_shapes(self.inner, other.inner)
        bounded(len(self.columns) + len(other.columns), *inner)
        both = [np.broadcast_to(one.coefficients, (len(one.columns), *inner)) for one in (self, other)]
        columns = np.concatenate([self.columns, other.columns])
        return Linear(columns, np.concatenate(both), self.constant + other.constant)


Value: TypeAlias = Constant | Symbols | Linear | Batched


def is_symbols(value: object) -> TypeGuard[Symbols]:
    """Return True for symbols. Constants of texts have the same type, but no such elements."""
    if not (isinstance(value, np.ndarray) and value.dtype == object and value.size):
        return False
    return isinstance(value.flat[0], Sum | Text | frozenset)


def is_constant(value: object) -> TypeGuard[Constant]:
    return isinstance(value, np.ndarray) and not is_symbols(value)


def symbols_of(elements: Sequence[Any], inner: tuple[int, ...]) -> Symbols:
    """Return elements with the shape of one row."""
    count_pieces(len(elements))
    symbols = np.empty(len(elements), object)
    for place, element in enumerate(elements):
        symbols[place] = element
    return symbols.reshape(inner)


def sums_of(value: Value) -> Symbols:
    """Return symbols that are numbers. Raises InvalidInput for other values."""
    if not is_symbols(value) or not all(isinstance(element, Sum) for element in value.flat):
        raise InvalidInput(f"{NOT_LINEAR}. Only numbers and indicators of levels are multiplied.")
    return value


def mapped(change: Callable[..., Any], *arrays: NDArray[Any]) -> Symbols:
    """Return the results of a function for each element, with the arrays broadcast to one shape."""
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    few(prod(shape))
    lists = (np.broadcast_to(array, shape).reshape(-1).tolist() for array in arrays)
    return symbols_of([change(*elements) for elements in zip(*lists, strict=True)], shape)


def linear_of(value: Value) -> Linear:
    """Return a linear map, which for symbols is the identity."""
    if isinstance(value, Linear):
        return value
    symbols = sums_of(value)
    bounded(symbols.size, symbols.size)
    identity = np.eye(symbols.size).reshape(symbols.size, *symbols.shape)
    return Linear(symbols.reshape(-1), identity, np.zeros(symbols.shape))


def multiplied(value: Value, coefficients: Array) -> Linear:
    """Return the map of a row of w numbers by coefficients (w, k) or (w,)."""
    width = value.constant.shape if isinstance(value, Linear) else sums_of(value).shape
    if width != coefficients.shape[:1]:
        raise InvalidInput(
            f"The graph multiplies rows of the shape {list(width)} by coefficients of the shape "
            f"{list(coefficients.shape)}."
        )
    if isinstance(value, Linear):
        bounded(len(value.columns), *coefficients.shape[1:])
        return Linear(value.columns, value.coefficients @ coefficients, value.constant @ coefficients)
    return Linear(sums_of(value), coefficients, np.zeros(coefficients.shape[1:]))


def without_rows(constant: Constant, rank: int) -> Constant:
    """Return a constant that has an axis of rows of length 1 without it."""
    return constant[0] if constant.ndim == rank + 1 and constant.shape[0] == 1 else constant


def few(count: int) -> None:
    """Raise InvalidInput if a tensor has too many symbols."""
    if count > MAX_ELEMENTS:
        raise InvalidInput(f"The graph makes a tensor of more than {MAX_ELEMENTS:,} columns.")


def bounded(*shape: int) -> None:
    """Raise InvalidInput if a tensor of this shape has too many elements."""
    if prod(shape) > MAX_WEIGHTS:
        raise InvalidInput(f"The graph makes a tensor of more than {MAX_WEIGHTS:,} numbers per row.")


def number_atom(element: object) -> Atom | None:
    """Return the atom of a feature that is not changed yet, or None."""
    atom = element.atom if isinstance(element, Sum) else None
    return atom if atom is not None and atom.kind == "number" else None
