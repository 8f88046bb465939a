"""A model of some of the targets, so that a statistic of a few targets does not take the work of thousands."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array, SufficientStatistics, r_factor


def with_targets(model: LinearModel, kept: Sequence[int]) -> LinearModel:
    """Return the model of the targets at these indices. It has the same rows, and shares the decomposed design."""
    chosen = np.asarray(kept, dtype=np.intp)
    centre = model.centre_prediction
    found = replace(
        model,
        targets=tuple(model.targets[index] for index in kept),
        coef=model.coef[chosen],
        intercept=model.intercept[chosen],
        residual_norms=model.residual_norms[chosen],
        centre_prediction=None if centre is None else centre[chosen],
        known_statistics=_with_targets(model.statistics, kept) if model.has_statistics else None,
    )
    if model.has_statistics:
        vars(found)["design"] = model.design  # a cached property, which does not depend on targets
    return found


def _with_targets(statistics: SufficientStatistics, kept: Sequence[int]) -> SufficientStatistics:
    columns = [*range(statistics.features), *(statistics.features + index for index in kept)]
    return replace(
        statistics,
        shift=statistics.shift[columns],
        scale=statistics.scale[columns],
        factor=_factor_of(statistics.factor, 1 + statistics.features, kept),
        removed=None if statistics.removed is None else _factor_of(statistics.removed, 1 + statistics.features, kept),
    )


def _factor_of(factor: Array, first: int, kept: Sequence[int]) -> Array:
    """Return the triangular factor of the first columns and of the kept ones among those after `first`."""
    columns = [first + index for index in kept]
    out = np.zeros((first + len(kept), first + len(kept)))
    out[:first, :first] = factor[:first, :first]
    out[:first, first:] = factor[:first, columns]
    rest = r_factor(factor[first:, columns])
    out[first : first + len(rest), first:] = rest
    return out
