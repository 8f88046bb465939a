"""Results of OLS and WLS of statsmodels, with their covariance."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from linserve.convert._design import ONE, Array, Design, Polynomial
from linserve.convert._formula import formula_columns
from linserve.convert._names import feature_names, target_names
from linserve.errors import NotConvertible

_MODELS = ("OLS", "WLS")


def recognises(estimator: object) -> bool:
    return type(estimator).__module__.partition(".")[0] == "statsmodels"


def convert(estimator: Any, features: Sequence[str] | None, targets: Sequence[str] | None) -> dict[str, Any]:
    """Return the JSON of fitted results. Raises NotConvertible."""
    results = getattr(estimator, "_results", estimator)
    model: Any = getattr(results, "model", None)
    kind = type(model).__name__
    if type(results).__name__ not in ("RegressionResults", "OLSResults") or kind not in _MODELS:
        name = kind if model is not None else type(results).__name__
        raise NotConvertible(f"{name} cannot be imported. Give the results of OLS or WLS, as its `fit` returns them.")
    if model.exog is None:
        raise NotConvertible(f"{kind} cannot be imported without its data, which `remove_data` has removed.")
    parameters = np.asarray(results.params, dtype=np.float64)
    if parameters.ndim != 1:
        raise NotConvertible(f"{kind} with several targets cannot be imported. Fit one model for each target.")
    design, columns = _columns(model, features)
    # Each parameter's share in the intercept and in the coefficients of Linserve's columns.
    record = design.model(columns, np.eye(len(parameters)), np.zeros(len(parameters)))
    shares = np.column_stack([record["intercept"], record["coefficients"]])
    intercept, *coefficients = (parameters @ shares).tolist()
    return {
        **record,
        "targets": target_names(targets, 1, [str(model.endog_names)]),
        "coefficients": [coefficients],
        "intercept": [intercept],
        "source": f"statsmodels {kind}",
        **_covariance(results, kind, shares),
    }


def _columns(model: Any, features: Sequence[str] | None) -> tuple[Design, list[Polynomial]]:
    """Return the columns of the design. Only a formula makes products: elsewhere, a:b is the name of a column."""
    spec = getattr(model.data, "model_spec", None)
    spec = getattr(model.data, "design_info", None) if spec is None else spec  # before statsmodels 0.15
    if hasattr(model, "formula") and spec is not None:
        design, columns = formula_columns(spec, model.exog_names)
        names = feature_names(features, [feature.name for feature in design.features], len(design.features))
        for feature, name in zip(design.features, names, strict=True):
            feature.name = name
        return design, columns
    constant = _constant(np.asarray(model.exog))
    known = [name for index, name in enumerate(model.exog_names) if index != constant]
    design = Design(feature_names(features, known, len(known)))
    columns = design.raw()
    if constant is not None:
        columns.insert(constant, {ONE: 1.0})
    return design, columns


def _constant(design: Array) -> int | None:
    """Return the index of the column of ones."""
    constant = [index for index, column in enumerate(design.T) if (column == 1).all()]
    if len(constant) > 1:
        raise NotConvertible("The model has more than one column of ones, so its coefficients are not determined.")
    return constant[0] if constant else None


def _covariance(results: Any, kind: str, shares: Array) -> dict[str, Any]:
    """Return the covariance of the coefficients, the intercept first, and the degrees of freedom."""
    if results.cov_type != "nonrobust":
        warnings.warn(
            f"The covariance of type {results.cov_type} is left out. Intervals need errors of equal variance. "
            "The imported version predicts, but has no intervals.",
            stacklevel=2,
        )
        return {}
    if not results.use_t:
        warnings.warn(
            "The covariance of a fit with use_t=False is left out. Its intervals have normal quantiles, and those of "
            "Linserve have quantiles of Student's t. The imported version predicts, but has no intervals.",
            stacklevel=2,
        )
        return {}
    if not shares[:, 0].any():  # The model has no intercept.
        shares = shares[:, 1:]
        if kind == "WLS":
            warnings.warn("The covariance of a WLS without a constant is left out.", stacklevel=2)
            return {}
    covariance = shares.T @ np.asarray(results.cov_params(), dtype=np.float64) @ shares
    rank = min(results.model.rank, np.linalg.matrix_rank(shares))
    if rank < max(shares.shape) or not np.isfinite(covariance).all():
        warnings.warn(
            "The covariance is left out, because the columns are linearly dependent, or there are too few rows.",
            stacklevel=2,
        )
        return {}
    fields = {"covariance": [covariance.tolist()], "residual_df": float(results.df_resid), "rss": [float(results.ssr)]}
    return fields | ({"weighted": True} if kind == "WLS" else {})
