"""Random rows with categories, encoded as their indicators."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.regression.sufficient_statistics import SufficientStatistics, WeightKind
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

Array = NDArray[np.float64]


def indicators(codes: NDArray[np.int64], levels: Sequence[int]) -> Array:
    """Return a column of 0 and 1 for each level except the first, (n, levels - 1)."""
    return np.asfortranarray((codes[:, np.newaxis] == np.array(levels[1:], dtype=np.int64)).astype(np.float64))


def encoded(x: Array, codes: NDArray[np.int64], levels: Sequence[int]) -> Array:
    """Return the columns: the first of x, the indicators, and the others of x."""
    return np.hstack([x[:, :1], indicators(codes, levels), x[:, 1:]])


def block_of(levels: Sequence[int]) -> slice:
    """Return the place of the indicators in `encoded`."""
    return slice(1, len(levels))


def summary(
    x: Array, y: Array, block: slice, weights: Array | None = None, weight_kind: WeightKind = "precision"
) -> SufficientStatistics:
    return summarise([TrainingBatch(x, y, weights)], weight_kind=weight_kind, blocks=[block])


def rows_of(seed: int, rows: int, levels: int, numbers: int = 2) -> tuple[Array, NDArray[np.int64], Array]:
    """Return numbers, level codes and targets, with means that differ by level."""
    random = np.random.default_rng(seed)
    codes = random.choice(levels, rows, p=random.dirichlet(np.ones(levels)))
    x = random.normal(size=(rows, numbers)) * [1, 100, *[1] * (numbers - 2)] + codes[:, np.newaxis] / 3 + 50
    return x, codes, x.sum(axis=1, keepdims=True) + codes[:, np.newaxis] ** 2 + random.normal(size=(rows, 2))


def gram_about(statistics: SufficientStatistics, shift: Array) -> Array:
    """Return the Gram matrix of the rows [1, z - shift]."""
    factor = statistics.rescaled_factor(shift, np.ones_like(shift))
    return np.asarray(factor.T @ factor)
