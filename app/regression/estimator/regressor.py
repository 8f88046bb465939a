"""An estimator with scikit-learn's conventions that fits as the service does, through `fit_model`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Self

import numpy as np

from app.regression.errors import NO_ROWS, FitError, InvalidData
from app.regression.estimator.arrays import Columns, is_batches, not_fitted, read_batches, target_matrix
from app.regression.estimator.options import checked_share, checked_terms, checked_weight_kind, chosen_solver
from app.regression.estimator.summary import Summary, summarise_model
from app.regression.fit import Base, fit_model
from app.regression.folds import FoldOptions
from app.regression.linear_model import LinearModel
from app.regression.solvers import Solver
from app.regression.sufficient_statistics import Array, WeightKind
from app.regression.training_batch import TrainingBatch

AUTO_FOLDS = 10  # Folds of the cross-validation that chooses `l2="auto"`.
PARAMETERS = ("l2", "fit_intercept", "terms", "weight_kind", "solver")


@dataclass(frozen=True, eq=False)
class _Data:
    """Rows of an array, or of batches, for `fit_model`."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    terms: tuple[str, ...]
    weight_kind: WeightKind
    batches: Callable[[], Iterator[TrainingBatch]]
    can_be_reread: bool
    blocks: tuple[slice, ...] = ()


class LinearRegressor:
    """Linear regression with exact updates, forgetting and inference, for one or several targets.

    Parameters
    ----------
    l2 : float or "auto", default 0
        Ridge penalty on standardised columns: l2 times the sum of (coef_j * deviation_j)^2 is added to the residual sum
        of squares, with the intercept free. "auto" chooses it among 34 values by 10-fold cross-validation.
    fit_intercept : bool, default True
    terms : sequence of str, optional
        Columns made from the features, such as ["temp", "temp^2", "temp:rainfall"]. Unnamed features are x0, x1, ... .
    weight_kind : "precision" or "frequency"
        Meaning of `sample_weight`: the inverse of the variance of a row's error up to a common factor, or the number of
        times that the row was observed.
    solver : str or solver, default "exact"
        "gradient_descent", or an object of app.regression.solvers such as GradientDescent(epochs=200), with
        start="current" to go on from the coefficients so far. `l2` and `fit_intercept` belong to the exact solver.

    Attributes
    ----------
    coef_ : array, (p,) or (k, p) for y of shape (n, k); with terms, p is their number
    intercept_ : float, or array (k,)
    n_features_in_ : int
    feature_names_in_ : array of str, only if X was a frame whose column names are strings
    model_ : app.regression.linear_model.LinearModel
    solver_ : the solver that was used, with the chosen l2
    warnings_ : tuple of str, sentences about the fit

    A fit to many rows uses as many threads as BLAS may: one per core, unless OMP_NUM_THREADS or
    threadpoolctl.threadpool_limits says otherwise. Their number does not change a bit of the result.

    All errors are ValueErrors. Rows that cannot be fitted raise `app.regression.errors.FitError`.
    """

    coef_: Array
    intercept_: float | Array
    n_features_in_: int
    feature_names_in_: np.ndarray[Any, Any]
    model_: LinearModel
    solver_: Solver
    warnings_: tuple[str, ...]

    def __init__(
        self,
        *,
        l2: float | Literal["auto"] = 0.0,
        fit_intercept: bool = True,
        terms: Sequence[str] | None = None,
        weight_kind: WeightKind = "precision",
        solver: str | Solver = "exact",
    ) -> None:
        self.l2 = l2
        self.fit_intercept = fit_intercept
        self.terms = terms
        self.weight_kind = weight_kind
        self.solver = solver

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - no parameter is an estimator
        return {name: getattr(self, name) for name in PARAMETERS}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name. Raises ValueError for an unknown one."""
        for name, value in params.items():
            if name not in PARAMETERS:
                raise ValueError(f"Invalid parameter {name!r} for estimator {self}. Valid parameters: {PARAMETERS}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = type(self)().get_params()
        changed = (
            f"{name}={value!r}" for name, value in self.get_params().items() if repr(value) != repr(defaults[name])
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags, Tags, TargetTags  # only scikit-learn calls this

        target_tags = TargetTags(required=True, multi_output=True)
        return Tags(estimator_type="regressor", target_tags=target_tags, regressor_tags=RegressorTags())

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit to rows. Earlier rows are replaced.

        X is (n, p), an array or a frame, and y is (n,) or (n, k). Without y, X yields batches (X, y) or
        (X, y, sample_weight), which are read once and not kept. Batches that can be iterated again, such as a
        DataLoader, may be read twice to refine the fit.
        """
        return self._fit(X, y, sample_weight, columns=None)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Add rows to those of earlier calls, or fit to them in the first call. The result is that of all rows."""
        return self.update(X, y, sample_weight) if self.__sklearn_is_fitted__() else self.fit(X, y, sample_weight)

    def update(self, X: Any, y: Any = None, sample_weight: Any = None, *, decay: float = 1.0) -> Self:
        """Add rows to those that the estimator was fitted to, exactly. The earlier rows are not needed.

        The weights of the earlier rows are multiplied by `decay`, in (0, 1].
        """
        base = Base(self.fitted_model().statistics, "update", checked_share(decay, "decay"))
        return self._fit(X, y, sample_weight, columns=self._columns, base=base)

    def forget(self, X: Any, y: Any = None, sample_weight: Any = None, *, share: float = 1.0) -> Self:
        """Take out rows that the estimator was fitted to, exactly. The other rows are not needed.

        `share` is the share of their weight that decay has left. Numbers that rounding errors may have changed are
        withheld. Raises NotIncluded if the rows cannot be among those of the fit, and InvalidData if too few remain.
        """
        base = Base(self.fitted_model().statistics, "forget", checked_share(share, "share"))
        return self._fit(X, y, sample_weight, columns=self._columns, base=base)

    def predict(self, X: Any, interval: float | None = None) -> Any:
        """Return predictions, (n,) or (n, k), and with `interval` also prediction intervals, (n, 2) or (n, k, 2).

        An interval contains a new observation of mean weight with the probability `interval`.
        Raises FitError if inference is withheld, with the reason.
        """
        model = self.fitted_model()
        x = self._columns.check(type(self).__name__, X)
        predictions = self._shaped(model.predict(x))
        if interval is None:
            return predictions
        if not 0 < interval < 1:
            raise ValueError(f"interval is {interval}, expected a probability between 0 and 1.")
        if model.inference_unavailable is not None:
            raise FitError(f"There are no intervals. {model.inference_unavailable}")
        return predictions, self._shaped(model.interval(x, interval))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R squared of the predictions, averaged over targets, as scikit-learn's r2_score.

        A target that does not vary counts 1 if it is predicted exactly, otherwise 0.
        """
        predictions = np.reshape(self.predict(X), (-1, len(self.fitted_model().targets)))
        observed = target_matrix(y)
        mean = np.average(observed, axis=0, weights=sample_weight)
        residual, total = (
            np.average((observed - reference) ** 2, axis=0, weights=sample_weight) for reference in (predictions, mean)
        )
        share = np.divide(residual, total, out=(residual > 0).astype(np.float64), where=total > 0)
        return float((1 - share).mean())

    def summary(self, level: float = 0.95) -> Summary:
        """Return the table of coefficients, standard errors, t, p, confidence intervals of this level and fit
        statistics, for each target. AIC and BIC count the variance as a parameter, as R does.
        """
        model = self.fitted_model()
        return summarise_model(model, f"Linear regression by {self.solver_.label}", level=level)

    def fitted_model(self) -> LinearModel:
        """Return the fitted model. Raises NotFitted, or scikit-learn's NotFittedError if scikit-learn is loaded."""
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self)
        return self.model_

    def _shaped(self, values: Array) -> Array:
        """Return values, (n, k, ...), without the target's axis if y was (n,)."""
        return values[:, 0] if self._columns.vector_target else values

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, columns: Columns | None, base: Base | None = None) -> Self:
        batches = X if is_batches(X, y) else [(X, y, sample_weight)]
        if sample_weight is not None and batches is X:
            raise InvalidData("Batches have their own weights: pass (X, y, sample_weight) in each batch.")
        if sample_weight is not None and not np.asarray(sample_weight).any():
            raise InvalidData("All sample weights are zero.")
        columns, data = self._data(batches, columns, self.terms if base is None else self.model_.terms)
        solver, folds = chosen_solver(self), None
        if self.l2 == "auto" and base is None:
            folds = FoldOptions(AUTO_FOLDS, choose_l2=True)
        result = fit_model(data, solver, base=base, folds=folds, reread=data.can_be_reread, reused=batches is X)
        model = self.model_ = result.model
        self._columns, self.solver_, self.warnings_ = columns, result.solver, result.warnings
        self.coef_ = model.coef[0].copy() if columns.vector_target else model.coef.copy()
        self.intercept_ = float(model.intercept[0]) if columns.vector_target else model.intercept.copy()
        self.n_features_in_ = len(columns.features)
        if columns.has_feature_names:
            self.feature_names_in_ = np.array(columns.features, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self

    def _data(
        self, batches: Iterable[Any], columns: Columns | None, terms: Sequence[str] | None
    ) -> tuple[Columns, _Data]:
        """Return the columns, those of the first batch unless they are given, and the rows of all batches."""
        can_be_reread = not isinstance(batches, Iterator)
        if columns is None:
            iterator = iter(batches)
            try:
                first = next(iterator)
            except StopIteration:
                raise FitError(NO_ROWS) from None
            columns = Columns.of(*next(read_batches([first]))[:2])
            batches = batches if can_be_reread else chain([first], iterator)
        fixed, name, weight_kind = columns, type(self).__name__, checked_weight_kind(self.weight_kind)

        def read() -> Iterator[TrainingBatch]:
            for x, y, sample_weight in read_batches(batches):
                yield fixed.batch(name, x, y, sample_weight, weight_kind)

        names = checked_terms(terms, columns.features)
        data = _Data(columns.features, columns.targets, names, weight_kind, read, can_be_reread)
        return columns, data
