"""Operators of ai.onnx.ml, as skl2onnx writes them for scikit-learn's transformers and linear models."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np

from app.data.columns.text_profile import MAX_LEVELS
from app.data.names import shown
from app.errors import InvalidInput
from app.exchange.expression import Atom, Sum, added
from app.exchange.onnx.file import Node
from app.exchange.onnx.operators import Operator, State, mark_of
from app.exchange.onnx.values import (
    Linear,
    Text,
    Value,
    few,
    is_symbols,
    mapped,
    multiplied,
    number_atom,
    sums_of,
    symbols_of,
)
from app.exchange.pieces import count_pieces
from app.regression.sufficient_statistics import Array


def _linear_regressor(state: State, node: Node, inputs: list[Any]) -> Value:
    transform = node.attributes.get("post_transform", b"NONE")
    if transform != b"NONE":
        raise InvalidInput(
            f"The graph has a LinearRegressor with the transform {shown(transform.decode(errors='replace'))}. "
            "Supported: NONE."
        )
    targets = int(node.attributes.get("targets", 1))
    coefficients = _floats(node, "coefficients")
    intercepts = _floats(node, "intercepts") if "intercepts" in node.attributes else np.zeros(max(targets, 0))
    if not intercepts.any() and targets > 0:  # skl2onnx writes a single 0 for a model without an intercept.
        intercepts = np.zeros(targets)
    if targets < 1 or not coefficients.size or coefficients.size % targets or len(intercepts) != targets:
        raise InvalidInput("The LinearRegressor has coefficients or intercepts that do not fit its targets.")
    state.is_single = True
    result = multiplied(inputs[0], coefficients.reshape(targets, -1).T)
    return Linear(result.columns, result.coefficients, result.constant + intercepts)


def _floats(node: Node, name: str) -> Array:
    values = node.attributes.get(name)
    if not isinstance(values, np.ndarray):
        raise InvalidInput(f"{node.shown} has no {name}.")
    return values.astype(np.float64)


def _scaler(state: State, node: Node, inputs: list[Any]) -> Value:
    """Return (x - offset) scale."""
    offset, scale = (_floats(node, name) for name in ("offset", "scale"))
    state.is_single = True
    return mapped(_scaled, sums_of(inputs[0]), *_broadcast(inputs[0].shape, offset, scale))


def _broadcast(shape: tuple[int, ...], *arrays: Array) -> list[Array]:
    for array in arrays:
        if array.shape not in ((1,), shape[-1:]):
            raise InvalidInput("A Scaler or an Imputer does not have one value, or a value for each of its columns.")
    return list(arrays)


def _scaled(one: Sum, offset: float, scale: float) -> Sum:
    return (one.plus(-offset) if offset else one).times(scale)


def _imputer(state: State, node: Node, inputs: list[Any]) -> Value:
    whole = "imputed_value_int64s" in node.attributes
    fills = _floats(node, "imputed_value_int64s" if whole else "imputed_value_floats")
    mark = float(node.attributes.get("replaced_value_int64" if whole else "replaced_value_float", 0))
    state.is_single |= not whole
    (fills,) = _broadcast(np.shape(inputs[0]), fills)
    return mapped(lambda element, fill: _imputed(state, element, fill, mark), sums_of(inputs[0]), fills)


def _imputed(state: State, element: Sum, fill: float, mark: float) -> Sum:
    """Return a feature, scaled or not, with a number in place of its gaps."""
    if len(element.parts) == 1 and not element.constant:
        ((monomial, part),) = element.parts.items()
        if len(monomial) == 1 and monomial[0][1] == 1 and monomial[0][0].kind == "number" and part.coefficient:
            feature = monomial[0][0].feature
            if not isnan(mark):
                if part != (1.0, 0.0):
                    raise InvalidInput("The graph replaces a value after it was scaled. Only NaN is supported there.")
                state.drafts[feature].na[mark_of(mark)] = None
            atom = Atom(feature, "filled", fill / part.coefficient + part.centre)
            return Sum({((atom, 1),): part})
    raise InvalidInput("The graph has an Imputer for values that are not those of a feature, which is not supported.")


def _one_hot(state: State, node: Node, inputs: list[Any]) -> Value:
    """Return an axis more, with an indicator for each level."""
    levels = node.attributes.get("cats_strings")
    levels = node.attributes.get("cats_int64s", np.empty(0)).tolist() if levels is None else levels
    if not 1 <= len(levels) <= MAX_LEVELS or len(set(levels)) < len(levels):
        raise InvalidInput(
            f"A OneHotEncoder has {len(levels):,} levels. 1 to {MAX_LEVELS:,} that differ are supported."
        )
    if not is_symbols(inputs[0]):
        raise InvalidInput("The graph has a OneHotEncoder for values that are not those of a feature.")
    zeros = bool(node.attributes.get("zeros", 1))
    few(inputs[0].size * len(levels))
    indicators = []
    for element in inputs[0].flat:
        text = _as_text(element)
        draft = state.drafts[text.feature]
        if text.codes is None:
            _note_levels(draft.levels, [str(level) for level in levels])
        elif text.default in levels:
            raise InvalidInput(
                f"The graph reads an unknown level of {shown(draft.name)} as a known one, which is not supported."
            )
        draft.has_zeros |= zeros
        indicators += [_indicator(state, text, labels) for labels in text.labels(levels)]
    return symbols_of(indicators, (*inputs[0].shape, len(levels)))


def _as_text(element: object) -> Text:
    """Return a feature as a category. Numbers are levels if they are whole."""
    if isinstance(element, Text):
        return element
    atom = number_atom(element)
    if atom is None or not isinstance(element, Sum):
        raise InvalidInput("The graph has a OneHotEncoder for values that are not those of a feature.")
    return Text(atom.feature)


def _note_levels(known: dict[str, None], names: Sequence[str]) -> None:
    """Add levels of a feature to those that are known. The empty text is a missing value."""
    known.update(dict.fromkeys(name for name in names if name))
    if len(known) > MAX_LEVELS:
        raise InvalidInput(f"A category has more than {MAX_LEVELS:,} levels, which is not supported.")


def _indicator(state: State, text: Text, labels: Sequence[str]) -> Sum:
    """Return the sum of the indicators of texts."""
    known = [label for label in labels if label and label not in state.drafts[text.feature].na]
    if known or "" not in labels:
        return added([Sum.of(Atom(text.feature, "level", label)) for label in known])
    return Sum.of(Atom(text.feature, "missing"))


def _label_encoder(state: State, node: Node, inputs: list[Any]) -> Value:
    """Return the code of each level, a whole number or another text."""
    keys = node.attributes.get("keys_strings")
    if keys is None and isinstance(node.attributes.get("keys_int64s"), np.ndarray):
        keys = [str(key) for key in node.attributes["keys_int64s"].tolist()]
    values = node.attributes.get("values_int64s")
    default: Any = int(node.attributes.get("default_int64", -1))
    values = values.tolist() if isinstance(values, np.ndarray) else node.attributes.get("values_strings")
    if keys is None or values is None or len(keys) != len(values) or not is_symbols(inputs[0]):
        raise InvalidInput(
            "The graph has a LabelEncoder that is not supported. Expected one that gives texts or whole numbers for "
            "the levels of a feature."
        )
    if "values_strings" in node.attributes:
        default = node.attributes.get("default_string", b"_Unused").decode(errors="replace")
    codes = dict(zip(keys, values, strict=True))
    return mapped(lambda element: _coded(state, element, codes, default), inputs[0])


def _coded(state: State, element: object, codes: Mapping[str, int | str], default: int | str) -> Text:
    text = _as_text(element)
    count_pieces(len(codes if text.codes is None else text.codes))
    if text.codes is None:
        draft = state.drafts[text.feature]
        _note_levels(draft.levels, list(codes))
        if (gap := codes.get("")) is not None and not (isinstance(gap, int) and gap < 0):
            alike = [label for label, code in codes.items() if label and code == gap]
            draft.na |= dict.fromkeys(label for label in alike if label in draft.marks)
            draft.fill = next((label for label in alike if label not in draft.marks), None)
        return Text(text.feature, codes, default)
    known = {label: codes.get(str(code), default) for label, code in text.codes.items()}
    return Text(text.feature, known, codes.get(str(text.default), default))


ML_OPERATORS: Mapping[str, Operator] = {
    "LinearRegressor": _linear_regressor,
    "Scaler": _scaler,
    "Imputer": _imputer,
    "OneHotEncoder": _one_hot,
    "LabelEncoder": _label_encoder,
}
