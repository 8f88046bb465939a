"""The statistics of a cross-validation's folds as tensors of a version's file.

Only an update reads them: it adds its rows to the folds. Predictions need none of them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.registry.model_card import ModelCard
from app.regression.sufficient_statistics import SufficientStatistics

MAX_FOLD_BYTES = 64 << 20  # of all folds of a version; ten folds of 900 columns
PREFIX = "folds."

_SCALARS = ("number", "rows", "effective_rows", "log_weights")
_ARRAYS = ("shift", "scale", "factor", "minimum", "maximum")

Tensors = dict[str, NDArray[np.float64]]


def fold_bytes(folds: Mapping[int, SufficientStatistics]) -> int:
    """Return the bytes that the folds take in a file."""
    arrays: list[NDArray[np.float64]] = [getattr(fold, name) for fold in folds.values() for name in _ARRAYS]
    return sum(array.nbytes for array in arrays) + 8 * len(_SCALARS) * len(folds)


def fold_tensors(folds: Mapping[int, SufficientStatistics]) -> Tensors:
    """Return the folds as tensors, each stacked over the folds. Their kind of weights is in the card."""
    statistics = folds.values()
    tensors = {"number": np.array(list(folds), dtype=np.float64)}
    tensors |= {
        name: np.array([getattr(fold, name) for fold in statistics], dtype=np.float64)
        for name in (*_SCALARS[1:], *_ARRAYS)
    }
    return {f"{PREFIX}{name}": tensor for name, tensor in tensors.items()}


def folds_of(card: ModelCard, tensors: Tensors) -> dict[int, SufficientStatistics]:
    """Return the folds whose tensors these are, which `fold_faults` found nothing wrong with."""
    values = {name: tensors[f"{PREFIX}{name}"] for name in (*_SCALARS, *_ARRAYS)}
    return {
        int(number): SufficientStatistics(
            features=len(card.terms or card.features),
            rows=int(values["rows"][index]),
            effective_rows=float(values["effective_rows"][index]),
            log_weights=float(values["log_weights"][index]),
            **{name: values[name][index] for name in _ARRAYS},
            weight_kind=card.weight_kind,
            discounted=card.discounted,
        )
        for index, number in enumerate(values["number"])
    }


def fold_faults(card: ModelCard, tensors: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Yield what is wrong with the tensors of the folds, of which there are none unless the card says so."""
    found = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    if card.validation is None or not card.validation.stored:
        if found:
            yield "it has statistics of folds that its card does not name"
        return
    p, k = len(card.terms or card.features), len(card.targets)
    f, d = card.validation.folds - card.validation.empty_folds, p + k
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_SCALARS, (f,))
    shapes |= {"shift": (f, d), "scale": (f, d), "factor": (f, d + 1, d + 1), "minimum": (f, p), "maximum": (f, p)}
    if found.keys() != shapes.keys():
        yield "its statistics of folds are not complete"
        return
    wrong = [name for name, shape in shapes.items() if found[name].dtype != np.float64 or found[name].shape != shape]
    if wrong:
        yield f"{', '.join(PREFIX + name for name in wrong)} have another type or shape than float64 for {f} folds"
        return
    numbers, rows = found["number"], found["rows"]
    if not (np.isin(numbers, np.arange(card.validation.folds)).all() and (np.diff(numbers) > 0).all()):
        yield f"its folds are not numbered from 0 to {card.validation.folds - 1}"
    if not ((rows >= 1).all() and (rows == np.floor(rows)).all() and rows.sum() == card.rows):
        yield f"its folds do not have {card.rows} rows together"
    if not np.isfinite(found["effective_rows"]).all():
        yield "folds.effective_rows is not finite"
