"""The tensors of a version's file, in tables for writing, checking and reading them.

The statistics of a cross-validation's folds are read only by an update, to add its rows to the folds.
"""

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.registry.model_card import ModelCard
from app.regression.design import WIDE
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import SufficientStatistics

Tensors: TypeAlias = dict[str, NDArray[np.float64]]

STATISTICS = "statistics."
FOLDS = "folds."
MAX_FOLD_BYTES = 64 << 20  # Bytes of all folds of a version; ten folds of 900 columns.
NUMBER_BYTES = 8


class Tensor(NamedTuple):
    """A tensor of float64, named as the attribute of LinearModel that it holds."""

    name: str
    shape: str  # lengths in terms of p columns and k targets
    optional: bool = False
    finite: bool = False


TENSORS = (
    Tensor("coef", "k p", finite=True),
    Tensor("intercept", "k", finite=True),
    Tensor("residual_norms", "k"),
    Tensor("unscaled_errors", "1+p", optional=True),
    Tensor("centre_prediction", "k", optional=True),
    Tensor("stored_centre", "p", optional=True, finite=True),
    Tensor("statistics.effective_rows", "1", finite=True),
    Tensor("statistics.log_weights", "1"),
    Tensor("statistics.operations", "1", finite=True),
    Tensor("statistics.shift", "p+k"),
    Tensor("statistics.scale", "p+k"),
    Tensor("statistics.factor", "1+p+k 1+p+k"),
    Tensor("statistics.minimum", "p"),
    Tensor("statistics.maximum", "p"),
    Tensor("statistics.removed", "1+p+k 1+p+k", optional=True),
    Tensor("statistics.indicator_rows", "p", optional=True, finite=True),
)

# Shapes of the folds' statistics for f folds, by the attributes of SufficientStatistics.
_FOLD_SHAPES = {
    "rows": "f",
    "effective_rows": "f",
    "log_weights": "f",
    "shift": "f p+k",
    "scale": "f p+k",
    "factor": "f 1+p+k 1+p+k",
    "minimum": "f p",
    "maximum": "f p",
}
_NUMBER = "number"  # The tensor of the folds' numbers.
FOLD_TENSORS = tuple(f"{FOLDS}{name}" for name in (_NUMBER, *_FOLD_SHAPES))  # names in a file


def shape_of(shape: str, **sizes: int) -> tuple[int, ...]:
    """Return a shape of the table in numbers. `sizes` has those of its letters."""
    sizes["1"] = 1
    return tuple(sum(sizes[term] for term in length.split("+")) for length in shape.split())


def _sizes(card: ModelCard) -> dict[str, int]:
    return {"p": len(card.columns), "k": len(card.targets)}


def model_tensors(model: LinearModel) -> Tensors:
    """Return the tensors of a model and its statistics."""
    names = [name for name, *_ in TENSORS if model.has_statistics or not name.startswith(STATISTICS)]
    values = {name: attrgetter(name)(model) for name in names}
    # A scalar becomes a tensor of one value.
    return {name: np.ascontiguousarray(value, dtype=np.float64) for name, value in values.items() if value is not None}


def tensor_faults(card: ModelCard, tensors: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Yield what is wrong with the tensors of a model that has this card."""
    without = card.imported is not None and card.imported.given == "coefficients"
    for name, dimensions, optional, finite in TENSORS:
        shape = shape_of(dimensions, **_sizes(card))
        is_statistic = name.startswith(STATISTICS)
        if without and is_statistic and name in tensors:
            yield f"{name} is present, although the version was imported without statistics"
        if name not in tensors:
            needed = not (optional or (without and is_statistic))
            if needed or (name == "unscaled_errors" and card.inference_unavailable is None):
                yield f"{name} is missing"
        elif tensors[name].dtype != np.float64 or tensors[name].shape != shape:
            yield f"{name} is {tensors[name].dtype} {tensors[name].shape} and not float64 {shape}"
        elif finite and not np.isfinite(tensors[name]).all():
            yield f"{name} is not finite"


def model_of(card: ModelCard, tensors: Tensors) -> LinearModel:
    """Return the model with this card and these tensors, in which `tensor_faults` found no fault."""
    values: dict[str, Any] = {tensor.name: tensors.get(tensor.name) for tensor in TENSORS}
    names = [name for name in values if name.startswith(STATISTICS)]
    statistics = {name.removeprefix(STATISTICS): values.pop(name) for name in names}
    return LinearModel(
        features=card.encoded_features,
        targets=card.targets,
        known_statistics=None if statistics["factor"] is None else _all_rows(card, statistics),
        terms=card.encoded_terms,
        has_intercept=getattr(card.solver, "fit_intercept", True),
        inference_unavailable=card.inference_unavailable,
        stored_rank=card.rank if len(card.columns) > WIDE or statistics["factor"] is None else None,
        **values,
    )


def _all_rows(card: ModelCard, values: dict[str, Any]) -> SufficientStatistics:
    """Return the statistics of all rows with these tensors, by the attributes that they hold."""
    values |= {name: values[name].item() for name in ("effective_rows", "log_weights", "operations")}
    values["operations"] = int(values["operations"])
    if values["indicator_rows"] is not None:
        values["indicator_rows"] = values["indicator_rows"].astype(np.int64)
    return _statistics_of(card, rows=card.rows, untracked=card.untracked, **values)


def _statistics_of(card: ModelCard, **values: Any) -> SufficientStatistics:
    return SufficientStatistics(
        features=len(card.columns),
        weight_kind=card.weight_kind,
        discounted=card.discounted,
        **values,
    )


def fold_bytes(folds: Mapping[int, SufficientStatistics]) -> int:
    """Return the bytes that the folds take in a file."""
    values = [getattr(fold, name) for fold in folds.values() for name in _FOLD_SHAPES]
    return sum(np.asarray(value).nbytes for value in values) + NUMBER_BYTES * len(folds)


def fold_tensors(folds: Mapping[int, SufficientStatistics]) -> Tensors:
    """Return the folds as tensors, each stacked over the folds. Their kind of weights is in the card."""
    columns = {name: [getattr(fold, name) for fold in folds.values()] for name in _FOLD_SHAPES}
    columns[_NUMBER] = list(folds)
    return {f"{FOLDS}{name}": np.array(column, dtype=np.float64) for name, column in columns.items()}


def folds_of(card: ModelCard, tensors: Tensors) -> dict[int, SufficientStatistics]:
    """Return the folds with these tensors, in which `fold_faults` found no fault."""
    folds = {}
    for index, number in enumerate(tensors[f"{FOLDS}{_NUMBER}"]):
        values: dict[str, Any] = {name: tensors[f"{FOLDS}{name}"][index] for name in _FOLD_SHAPES}
        values |= {name: float(values[name]) for name in ("effective_rows", "log_weights")}
        folds[int(number)] = _statistics_of(card, **values | {"rows": int(values["rows"])})
    return folds


def fold_faults(card: ModelCard, tensors: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Yield what is wrong with the tensors of the folds. There must be none unless the card declares them."""
    stored = {name.removeprefix(FOLDS): tensor for name, tensor in tensors.items() if name.startswith(FOLDS)}
    if card.validation is None or not card.validation.stored:
        if stored:
            yield "it has statistics of folds that its card does not name"
        return
    f = card.validation.folds - card.validation.empty_folds
    shapes = {name: shape_of(shape, f=f, **_sizes(card)) for name, shape in ({_NUMBER: "f"} | _FOLD_SHAPES).items()}
    if stored.keys() != shapes.keys():
        yield "its statistics of folds are not complete"
        return
    wrong = [name for name, shape in shapes.items() if stored[name].dtype != np.float64 or stored[name].shape != shape]
    if wrong:
        yield f"{', '.join(FOLDS + name for name in wrong)} have another type or shape than float64 for {f} folds"
        return
    numbers, rows = stored[_NUMBER], stored["rows"]
    if not (np.isin(numbers, np.arange(card.validation.folds)).all() and (np.diff(numbers) > 0).all()):
        yield f"its folds are not numbered from 0 to {card.validation.folds - 1}"
    if not ((rows >= 1).all() and (rows == np.floor(rows)).all() and rows.sum() == card.rows):
        yield f"its folds do not have {card.rows} rows together"
    if not np.isfinite(stored["effective_rows"]).all():
        yield "folds.effective_rows is not finite"
