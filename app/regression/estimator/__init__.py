"""`LinearRegressor`, the solvers behind scikit-learn's conventions. scikit-learn is not needed."""

from app.regression.estimator.regressor import LinearRegressor

__all__ = ["LinearRegressor"]
