"""The statistics of a cross-validation's folds as tensors of a version's file.

Only an update reads them, to add its rows to the folds. Predictions do not need them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.registry.model_card import ModelCard
from app.registry.tensors import Tensors, shape_for
from app.regression.sufficient_statistics import SufficientStatistics

NUMBER_BYTES = 8
MAX_FOLD_BYTES = 64 << 20  # Bytes of all folds of a version; ten folds of 900 columns.
PREFIX = "folds."

# Shapes for f folds, p columns and k targets, by the attributes of SufficientStatistics, and the folds' numbers.
_NUMBER = "number"
_SHAPES = {
    _NUMBER: "f",
    "rows": "f",
    "effective_rows": "f",
    "log_weights": "f",
    "shift": "f p+k",
    "scale": "f p+k",
    "factor": "f 1+p+k 1+p+k",
    "minimum": "f p",
    "maximum": "f p",
}


def fold_bytes(folds: Mapping[int, SufficientStatistics]) -> int:
    """Return the bytes that the folds take in a file."""
    values = [getattr(fold, name) for fold in folds.values() for name in _SHAPES if name != _NUMBER]
    return sum(np.asarray(value).nbytes for value in values) + NUMBER_BYTES * len(folds)


def fold_tensors(folds: Mapping[int, SufficientStatistics]) -> Tensors:
    """Return the folds as tensors, each stacked over the folds. Their kind of weights is in the card."""
    columns = {
        name: list(folds) if name == _NUMBER else [getattr(fold, name) for fold in folds.values()] for name in _SHAPES
    }
    return {f"{PREFIX}{name}": np.array(column, dtype=np.float64) for name, column in columns.items()}


def folds_of(card: ModelCard, tensors: Tensors) -> dict[int, SufficientStatistics]:
    """Return the folds with these tensors, in which `fold_faults` found no fault."""
    columns = {name: tensors[f"{PREFIX}{name}"] for name in _SHAPES}
    folds = {}
    for index, number in enumerate(columns.pop(_NUMBER)):
        values: dict[str, Any] = {name: column[index] for name, column in columns.items()}
        values |= {name: float(values[name]) for name in ("effective_rows", "log_weights")}
        values["rows"] = int(values["rows"])
        folds[int(number)] = SufficientStatistics(
            features=len(card.terms or card.features),
            weight_kind=card.weight_kind,
            discounted=card.discounted,
            **values,
        )
    return folds


def fold_faults(card: ModelCard, tensors: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Yield what is wrong with the tensors of the folds. There must be none unless the card declares them."""
    stored = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    if card.validation is None or not card.validation.stored:
        if stored:
            yield "it has statistics of folds that its card does not name"
        return
    f = card.validation.folds - card.validation.empty_folds
    if stored.keys() != _SHAPES.keys():
        yield "its statistics of folds are not complete"
        return
    shapes = {name: shape_for(shape, card, f=f) for name, shape in _SHAPES.items()}
    wrong = [name for name, shape in shapes.items() if stored[name].dtype != np.float64 or stored[name].shape != shape]
    if wrong:
        yield f"{', '.join(PREFIX + name for name in wrong)} have another type or shape than float64 for {f} folds"
        return
    numbers, rows = stored[_NUMBER], stored["rows"]
    if not (np.isin(numbers, np.arange(card.validation.folds)).all() and (np.diff(numbers) > 0).all()):
        yield f"its folds are not numbered from 0 to {card.validation.folds - 1}"
    if not ((rows >= 1).all() and (rows == np.floor(rows)).all() and rows.sum() == card.rows):
        yield f"its folds do not have {card.rows} rows together"
    if not np.isfinite(stored["effective_rows"]).all():
        yield "folds.effective_rows is not finite"
