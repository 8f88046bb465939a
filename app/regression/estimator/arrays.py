"""Check arrays, frames and batches that a caller passes to the estimator, and turn them into float64 arrays.

Messages that scikit-learn's own checks expect have its wording.
"""

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.regression.errors import FitError
from app.regression.sufficient_statistics import Array, WeightKind
from app.regression.training_batch import TrainingBatch

MAX_LISTED_NAMES = 5  # names of columns that a message lists


class NotFitted(FitError, AttributeError):
    """The estimator has no coefficients yet."""


def not_fitted(estimator: object) -> Exception:
    """Return the error for an estimator that is not fitted: scikit-learn's, if the caller has loaded scikit-learn."""
    message = f"This {type(estimator).__name__} instance is not fitted yet. Call 'fit' first."
    sklearn = sys.modules.get("sklearn.exceptions")
    return NotFitted(message) if sklearn is None else sklearn.NotFittedError(message)


@dataclass(frozen=True)
class Columns:
    """Names of features and targets, fixed by the first rows that an estimator is fitted to."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    has_feature_names: bool  # True if they are those of a frame
    vector_target: bool  # True if y is (n,)

    @classmethod
    def of(cls, x: Any, y: Any) -> "Columns":
        """Return the columns of a first batch. Unnamed ones are x0, x1, ... and y, or y0, y1, ... ."""
        names, inputs, targets = frame_columns(x), feature_matrix(x), target_matrix(y)
        features = names or tuple(f"x{index}" for index in range(inputs.shape[1]))
        target_names = frame_columns(y)
        if target_names is None:
            series_name = getattr(y, "name", None)
            single = series_name if isinstance(series_name, str) else "y"
            count = targets.shape[1]
            target_names = (single,) if count == 1 else tuple(f"y{index}" for index in range(count))
        return cls(features, target_names, names is not None, np.asarray(y).ndim == 1)

    def check(self, estimator: str, x: Any) -> Array:
        """Return the features of rows, (n, p). Raises ValueError unless they are the columns of the fit."""
        names = frame_columns(x)
        if names is not None and self.has_feature_names:
            _check_names(names, self.features)
        elif names is not None:
            warnings.warn(f"X has feature names, but {estimator} was fitted without feature names", stacklevel=4)
        elif self.has_feature_names:
            warnings.warn(
                f"X does not have valid feature names, but {estimator} was fitted with feature names", stacklevel=4
            )
        matrix = feature_matrix(x)
        count, expected = matrix.shape[1], len(self.features)
        if count != expected:
            raise ValueError(f"X has {count} features, but {estimator} is expecting {expected} features as input.")
        return matrix

    def batch(self, estimator: str, x: Any, y: Any, sample_weight: Any, weight_kind: WeightKind) -> TrainingBatch:
        """Return rows to train on. Raises ValueError if their columns or lengths do not fit."""
        inputs, targets = self.check(estimator, x), target_matrix(y)
        if len(inputs) != len(targets):
            raise ValueError(f"X has {len(inputs)} rows, and y has {len(targets)}.")
        if targets.shape[1] != len(self.targets):
            raise ValueError(f"y has {targets.shape[1]} targets, but {estimator} is expecting {len(self.targets)}.")
        return TrainingBatch(inputs, targets, _weights(sample_weight, len(inputs), weight_kind))


def frame_columns(values: Any) -> tuple[str, ...] | None:
    """Return the names of a frame's columns; None for an array, or if a name is not a string."""
    columns = getattr(values, "columns", None)
    if columns is None:
        return None
    names = list(columns)
    kinds = {isinstance(name, str) for name in names}
    if kinds == {True, False}:
        raise TypeError("Feature names are only supported if all input features have string names.")
    return tuple(names) if kinds == {True} else None


def _check_names(names: Sequence[str], expected: Sequence[str]) -> None:
    if tuple(names) == tuple(expected):
        return
    message = "The feature names should match those that were passed during fit.\n"
    unseen, missing = sorted(set(names) - set(expected)), sorted(set(expected) - set(names))
    if unseen:
        message += f"Feature names unseen at fit time:\n{_listed(unseen)}"
    if missing:
        message += f"Feature names seen at fit time, yet now missing:\n{_listed(missing)}"
    if not unseen and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    raise ValueError(message)


def _listed(names: Sequence[str]) -> str:
    more = "- ...\n" if len(names) > MAX_LISTED_NAMES else ""
    return "".join(f"- {name}\n" for name in names[:MAX_LISTED_NAMES]) + more


def feature_matrix(x: Any) -> Array:
    """Return features as an array, (n, p). Raises ValueError or TypeError if they cannot be used."""
    matrix = _numbers(x, "X")
    if matrix.ndim != 2:  # noqa: PLR2004 - rows and columns
        raise ValueError(
            f"Expected 2D array, got {matrix.ndim}D array instead. Reshape your data either using array.reshape(-1, 1) "
            "if your data has a single feature or array.reshape(1, -1) if it contains a single sample."
        )
    for count, name in zip(matrix.shape, ("sample", "feature"), strict=True):
        if count == 0:
            raise ValueError(f"Found array with 0 {name}(s) (shape={matrix.shape}) while a minimum of 1 is required.")
    return matrix


def target_matrix(y: Any) -> Array:
    """Return targets as an array, (n, k). Raises ValueError or TypeError if they cannot be used."""
    if y is None:
        raise ValueError("LinearRegressor requires y to be passed, but the target y is None.")
    targets = _numbers(y, "y")
    if targets.ndim not in (1, 2):
        raise ValueError(f"y has to be (n,) or (n, k), and it has {targets.ndim} dimensions.")
    return targets if targets.ndim == 2 else targets[:, np.newaxis]  # noqa: PLR2004 - rows and columns


def _weights(sample_weight: Any, rows: int, kind: WeightKind) -> Array | None:
    if sample_weight is None:
        return None
    weights = _numbers(sample_weight, "sample_weight")
    if weights.ndim == 0:
        weights = np.full(rows, float(weights))
    if weights.shape != (rows,):
        raise ValueError(f"sample_weight has the shape {weights.shape}, expected ({rows},).")
    if (weights < 0).any():
        raise ValueError("sample_weight has a negative value.")
    if kind == "frequency" and (weights != np.floor(weights)).any():
        raise ValueError("Frequency weights have to be whole numbers.")
    return weights


def _numbers(values: Any, name: str) -> Array:
    if hasattr(values, "toarray"):
        raise TypeError(f"Sparse data is not supported. Pass {name}.toarray().")
    array = np.asarray(values)
    if array.dtype.kind == "c":
        raise ValueError("Complex data not supported.")
    if array.dtype.kind not in "biuf":
        array = np.asarray(array, dtype=np.float64)  # raises ValueError or TypeError for text
    numbers = array.astype(np.float64, copy=False)
    if not np.isfinite(numbers).all():
        fault = "NaN" if np.isnan(numbers).any() else "infinity or a value too large for dtype('float64')"
        raise ValueError(f"Input {name} contains {fault}.")
    return numbers


def is_batches(x: Any, y: Any) -> bool:
    """Return True if x is an iterator of batches (X, y) or (X, y, sample_weight), or an iterable object of them."""
    is_table = hasattr(x, "__array__") or hasattr(x, "toarray") or isinstance(x, list | tuple)
    return y is None and isinstance(x, Iterable) and not is_table


def read_batches(batches: Iterable[Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Yield X, y and sample_weight, None if missing, of each batch. Raises ValueError for anything else."""
    for batch in batches:
        try:
            x, y, *weights = batch
            (sample_weight,) = weights or (None,)
        except (TypeError, ValueError):
            raise ValueError("A batch has to be (X, y) or (X, y, sample_weight).") from None
        yield x, y, sample_weight
