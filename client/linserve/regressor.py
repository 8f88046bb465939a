"""A scikit-learn estimator whose fits and predictions are made by a Linserve service."""

import contextlib
import functools
import os
import uuid
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

try:
    import numpy as np
    import pyarrow as pa
    from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError:
    raise ImportError("LinserveRegressor needs scikit-learn and pyarrow: pip install 'linserve[sklearn]'") from None

from linserve._client import Client
from linserve.errors import LinserveError

_WEIGHT = "sample_weight"


class LinserveRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A linear regression that a service fits.

    Parameters
    ----------
    url, api_key
        As for `Client`.
    model
        Name of the model that gets a new version with each fit. Without a name, the estimator creates a model, and
        deletes it when Python deletes the estimator, unless the estimator was pickled or copied.
    solver, l2, fit_intercept
        As in `Client.train`. The last two are options of the solver `exact`.
    options
        Further options of `Client.train`, such as `{"folds": 5}`.

    Attributes
    ----------
    coef_, intercept_
        As those of scikit-learn's linear regressions.
    model_, version_
        The version that `predict` uses.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        api_key: str | None = None,
        model: str | None = None,
        solver: Literal["exact", "gradient_descent"] = "exact",
        l2: float | Literal["auto"] = 0.0,
        fit_intercept: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.url = url
        self.api_key = api_key
        self.model = model
        self.solver = solver
        self.l2 = l2
        self.fit_intercept = fit_intercept
        self.options = options

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a version on the rows, and wait for it."""
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        self._single = y.ndim == 1
        targets = y.reshape(len(y), -1).astype(np.float64)
        self._names = _unique(getattr(self, "feature_names_in_", None), X.shape[1])
        self._targets = _other(self._names, "y", targets.shape[1])
        columns = dict(zip((*self._names, *self._targets), (*X.T, *targets.T), strict=True))
        given: dict[str, Any] = {"solver": self.solver, **(self.options or {})}
        if self.solver == "exact":
            given |= {"l2": self.l2, "fit_intercept": self.fit_intercept}
        if sample_weight is not None:
            given["weight"], *_ = _other((*self._names, *self._targets), _WEIGHT, 1)
            columns[given["weight"]] = _check_sample_weight(sample_weight, X, dtype=np.float64)
        self._take_model()
        job = self._client.train(
            pa.table(columns), model=self.model_, features=self._names, targets=self._targets, wait=60.0, **given
        ).wait()
        assert job.version is not None
        self.version_ = job.version
        card = self._client.card(self.model_, self.version_)
        coefficients = [[card["coefficients"][target][name] for name in self._names] for target in self._targets]
        intercept = [card["intercept"][target] for target in self._targets]
        self.coef_ = np.array(coefficients[0] if self._single else coefficients)
        self.intercept_ = intercept[0] if self._single else np.array(intercept)
        return self

    def predict(self, X: Any) -> Any:
        """Return the predictions of the fitted version for the rows."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        rows = pa.table(dict(zip(self._names, X.T, strict=True)))
        results = self._client.predict(rows, model=self.model_, version=self.version_)
        predictions = np.column_stack([results[target].to_numpy() for target in self._targets])
        return predictions[:, 0] if self._single else predictions

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters. The key is equal to the given one, but its `repr` does not show it."""
        params: dict[str, Any] = super().get_params(deep)
        if isinstance(self.api_key, str) and not isinstance(self.api_key, _Key):
            params["api_key"] = _Key(self.api_key)
        return params

    @property
    def _client(self) -> Client:
        return _client_of(self.url, self.api_key, os.getpid())

    def _take_model(self) -> None:
        """Set `model_`, and delete a model of its own together with the estimator."""
        if self.model is not None:
            self.model_ = self.model
        elif getattr(self, "_own", None) is None:
            self.model_ = f"estimator-{uuid.uuid4().hex[:16]}"
            client = self._client  # made first, because finalizers run in reverse order at exit
            self._own = weakref.finalize(self, _delete, client, self.model_, os.getpid())

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if (own := state.pop("_own", None)) is not None:
            own.detach()  # The copy needs the model too.
        return state


@functools.lru_cache(maxsize=8)
def _client_of(url: str | None, api_key: str | None, process: int) -> Client:  # noqa: ARG001 - connections are not shared by processes
    client = Client(url, api_key)
    weakref.finalize(client, client._transport.close)  # noqa: SLF001 - a method of the client would keep it alive
    return client


def _delete(client: Client, model: str, process: int) -> None:
    """Delete the model, unless this is a fork of the process whose estimator it is."""
    if os.getpid() == process:
        with contextlib.suppress(LinserveError):
            client.delete(model)


class _Key(str):
    """An API key whose `repr` is hidden, because scikit-learn prints the parameters of an estimator."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def _unique(names: Sequence[str] | None, count: int) -> list[str]:
    """Return the names of the features, or x0, x1 and so on."""
    return [f"x{index}" for index in range(count)] if names is None else [str(name) for name in names]


def _other(taken: Sequence[str], name: str, count: int) -> list[str]:
    """Return `count` names that are not taken."""
    while any(other.startswith(name) for other in taken):
        name += "_"
    return [name] if count == 1 else [f"{name}{index}" for index in range(count)]
