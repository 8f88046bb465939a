"""Linear regressions of scikit-learn, alone or at the end of a pipeline."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from linserve.convert._design import Design
from linserve.convert._names import feature_names, target_names
from linserve.convert._transformers import package_of, transform
from linserve.errors import NotConvertible

# Regressions whose prediction is X @ coef_ + intercept_.
_LINEAR = frozenset(
    {
        "BayesianRidge",
        "ElasticNet",
        "ElasticNetCV",
        "HuberRegressor",
        "Lasso",
        "LassoCV",
        "LinearRegression",
        "Ridge",
        "RidgeCV",
        "SGDRegressor",
    }
)


def recognises(estimator: object) -> bool:
    return package_of(estimator) == "sklearn"


def convert(estimator: Any, features: Sequence[str] | None, targets: Sequence[str] | None) -> dict[str, Any]:
    """Return the JSON of a fitted regression or pipeline. Raises NotConvertible."""
    steps, regression = _steps(estimator)
    name = type(regression).__name__
    if name not in _LINEAR or package_of(regression) != "sklearn":
        reason = " Give its best_estimator_." if hasattr(regression, "best_estimator_") else ""
        if name == "TransformedTargetRegressor":
            reason = " It transforms the predictions, and Linserve has no such step."
        known = ", ".join(sorted(_LINEAR))
        raise NotConvertible(f"{name} cannot be imported.{reason} Supported: {known}, alone or in a Pipeline.")
    if not hasattr(regression, "coef_"):
        raise NotConvertible(f"{name} is not fitted. Fit it first.")
    coefficients = np.atleast_2d(np.asarray(regression.coef_, dtype=np.float64))
    intercept = np.broadcast_to(np.ravel(regression.intercept_), (len(coefficients),))
    design = Design(feature_names(features, _known_names([*steps, regression]), _count(estimator, regression)))
    columns = design.raw()
    for step in steps:
        columns = transform(step, columns, design)
    if len(columns) != coefficients.shape[1]:
        raise NotConvertible(f"{name} has {coefficients.shape[1]} coefficients for {len(columns)} columns.")
    return {
        "targets": target_names(targets, len(coefficients)),
        **design.model(columns, coefficients, intercept),
        "source": f"scikit-learn {name}",
    }


def _steps(estimator: Any) -> tuple[list[Any], Any]:
    """Return the transformers, and the regression after them."""
    if type(estimator).__name__ != "Pipeline":
        return [], estimator
    *before, (_, last) = estimator.steps
    steps, regression = _steps(last)
    return [*(step for _, step in before), *steps], regression


def _known_names(steps: Sequence[Any]) -> list[str] | None:
    """Return the names that the first step knows. Steps that do nothing know none."""
    for step in steps:
        names = getattr(step, "feature_names_in_", None)
        if names is not None:
            return [str(name) for name in names]
        if not (isinstance(step, str | None) or type(step).__name__ == "FunctionTransformer"):
            break
    return None


def _count(estimator: Any, regression: Any) -> int:
    """Return the number of features of a row."""
    count = getattr(estimator, "n_features_in_", None)
    return int(np.shape(regression.coef_)[-1] if count is None else count)
