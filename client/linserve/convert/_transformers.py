"""Transformers of scikit-learn, as functions of polynomials."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from linserve.convert._categories import indicators, is_gap
from linserve.convert._design import ONE, Design, Polynomial, affine, product
from linserve.errors import NotConvertible

Columns = list[Polynomial]
_NO_STEPS = ("passthrough", None)


def package_of(estimator: object) -> str:
    return type(estimator).__module__.partition(".")[0]


def transform(step: Any, columns: Columns, design: Design) -> Columns:
    """Return the columns that a fitted transformer makes of these. Raises NotConvertible."""
    if isinstance(step, str | None) and step in _NO_STEPS:
        return columns
    if isinstance(step, str) and step == "drop":
        return []
    name = type(step).__name__
    convert = _TRANSFORMERS.get(name)
    if convert is None or package_of(step) != "sklearn":
        raise NotConvertible(
            f"The step {name} cannot be imported. Supported: {', '.join(sorted(_TRANSFORMERS))} and 'passthrough'."
        )
    try:
        return convert(step, columns, design)
    except AttributeError as error:
        raise NotConvertible(f"The step {name} is not fitted: {error}.") from None


def _pipeline(step: Any, columns: Columns, design: Design) -> Columns:
    for _, inner in step.steps:
        columns = transform(inner, columns, design)
    return columns


def _column_transformer(step: Any, columns: Columns, design: Design) -> Columns:
    made: Columns = []
    for name, inner, chosen in step.transformers_:
        indices = _indices(chosen, step, len(columns))
        if not indices:  # scikit-learn fits no transformer to no columns.
            continue
        part = transform(inner, [columns[index] for index in indices], design)
        weight = (step.transformer_weights or {}).get(name, 1.0)
        made += part if weight == 1.0 else [affine(column, weight, 0.0) for column in part]
    return made


def _indices(chosen: Any, step: Any, count: int) -> list[int]:
    """Return the indices of columns that are chosen by numbers, names, a mask or a slice."""
    names = [str(name) for name in getattr(step, "feature_names_in_", ())]
    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            start = 0 if chosen.start is None else names.index(chosen.start)
            return list(range(start, count if chosen.stop is None else names.index(chosen.stop) + 1))
        return list(range(count)[chosen])
    items = [chosen] if isinstance(chosen, str | int) else list(chosen)
    if items and all(isinstance(item, bool | np.bool_) for item in items):
        return [index for index, item in enumerate(items) if item]
    return [names.index(item) if isinstance(item, str) else int(item) % count for item in items]


def _function_transformer(step: Any, columns: Columns, design: Design) -> Columns:  # noqa: ARG001 - as all of them
    if step.func is not None:
        raise NotConvertible("The step FunctionTransformer cannot be imported, because a function cannot be sent.")
    return columns


def _standard_scaler(step: Any, columns: Columns, design: Design) -> Columns:
    scale = np.ones(len(columns)) if step.scale_ is None else step.scale_
    mean = np.zeros(len(columns)) if step.mean_ is None or not step.with_mean else step.mean_
    made = _affine(columns, 1.0 / np.asarray(scale), -np.asarray(mean) / scale)
    if step.scale_ is not None:
        design.note_scales(made)
    return made


def _min_max_scaler(step: Any, columns: Columns, design: Design) -> Columns:
    if step.clip:
        raise NotConvertible("The step MinMaxScaler(clip=True) cannot be imported, because a linear model cannot clip.")
    made = _affine(columns, step.scale_, step.min_)
    design.note_scales(made)
    return made


def _affine(columns: Columns, factors: Any, constants: Any) -> Columns:
    return [
        affine(column, float(factor), float(constant))
        for column, factor, constant in zip(columns, factors, constants, strict=True)
    ]


def _simple_imputer(step: Any, columns: Columns, design: Design) -> Columns:
    if step.add_indicator:
        raise NotConvertible("The step SimpleImputer(add_indicator=True) cannot be imported.")
    if not is_gap(step.missing_values):
        raise NotConvertible("The step SimpleImputer cannot be imported with `missing_values` other than NaN and None.")
    for column, value in zip(columns, step.statistics_, strict=True):
        if is_gap(value):
            raise NotConvertible("The step SimpleImputer left out a column that had no values, and cannot be imported.")
        index, factor, constant = _line(column, "SimpleImputer")
        feature = design.features[index]
        if isinstance(value, str):
            feature.fill_with(value)
        else:
            feature.fill_with((float(value) - constant) / factor)
    return columns


def _line(column: Polynomial, step: str) -> tuple[int, float, float]:
    """Return the feature's index, factor and constant of a column that is factor * feature + constant."""
    monomials = [monomial for monomial in column if monomial != ONE]
    if len(monomials) == 1 and len(monomials[0]) == 1:
        atom, power = monomials[0][0]
        if power == 1 and not atom.is_level and column[monomials[0]] != 0:
            return atom.feature, column[monomials[0]], column.get(ONE, 0.0)
    raise NotConvertible(f"The step {step} cannot be imported after steps that combine or encode columns.")


def _one_hot_encoder(step: Any, columns: Columns, design: Design) -> Columns:
    if step.handle_unknown == "infrequent_if_exist":
        raise NotConvertible("The step OneHotEncoder(handle_unknown='infrequent_if_exist') cannot be imported.")
    infrequent = getattr(step, "infrequent_categories_", None) or [None] * len(columns)
    if any(names is not None for names in infrequent):
        raise NotConvertible("The step OneHotEncoder cannot be imported if it has joined infrequent categories.")
    dropped = [None] * len(columns) if step.drop_idx_ is None else step.drop_idx_
    made: Columns = []
    for column, categories, left_out in zip(columns, step.categories_, dropped, strict=True):
        index, factor, constant = _line(column, "OneHotEncoder")
        if (factor, constant) != (1.0, 0.0):
            raise NotConvertible("The step OneHotEncoder cannot be imported after steps that scale its columns.")
        encoded = indicators(design.features[index], index, list(categories), left_out)
        made += [part for place, part in enumerate(encoded) if place != left_out]
    if step.handle_unknown in ("ignore", "warn"):
        _warn_of_unknown(all(index is not None for index in dropped))
    return made


def _warn_of_unknown(has_references: bool) -> None:
    reference = " Predict with unknown='reference' to get what OneHotEncoder makes of them." if has_references else ""
    warnings.warn(
        "OneHotEncoder ignores unknown categories. Linserve does not: a row with one is refused, or its prediction is "
        f"null.{reference}",
        stacklevel=2,
    )


def _polynomial_features(step: Any, columns: Columns, design: Design) -> Columns:  # noqa: ARG001 - as all of them
    made: Columns = []
    for powers in step.powers_:
        term: Polynomial = {ONE: 1.0}
        for column, power in zip(columns, powers, strict=True):
            for _ in range(int(power)):
                term = product(term, column)
        made.append(term)
    return made


_TRANSFORMERS: dict[str, Callable[[Any, Columns, Design], Columns]] = {
    "ColumnTransformer": _column_transformer,
    "FunctionTransformer": _function_transformer,
    "MinMaxScaler": _min_max_scaler,
    "OneHotEncoder": _one_hot_encoder,
    "Pipeline": _pipeline,
    "PolynomialFeatures": _polynomial_features,
    "SimpleImputer": _simple_imputer,
    "StandardScaler": _standard_scaler,
}
