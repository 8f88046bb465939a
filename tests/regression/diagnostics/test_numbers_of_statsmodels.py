"""Each number agrees with statsmodels to 1e-8 on real tables, with and without weights and an intercept."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import statsmodels.api as sm
from looks import Array, fit_of, look
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_linnerud
from statsmodels.stats.diagnostic import het_breuschpagan
from statsmodels.stats.outliers_influence import OLSInfluence
from statsmodels.stats.stattools import durbin_watson

from app.regression.solvers import Exact

NIST = Path(__file__).parents[1] / "nist"
RELATIVE = 1e-8


def tables() -> dict[str, tuple[Array, Array]]:
    diabetes, linnerud = load_diabetes(), load_linnerud()
    stackloss = sm.datasets.stackloss.load_pandas().data.to_numpy()
    longley = np.loadtxt(NIST / "longley.csv", delimiter=",", skiprows=1)
    return {
        "diabetes": (diabetes.data, diabetes.target[:, np.newaxis]),
        "linnerud": (linnerud.data, linnerud.target),
        "stackloss": (stackloss[:, 1:], stackloss[:, :1]),
        "longley": (longley[:, 1:], longley[:, :1]),
    }


class Reference(NamedTuple):
    """A fit by statsmodels to rows that are multiplied by the roots of their weights."""

    influence: OLSInfluence
    whitened: Array  # residuals times the roots of the weights over their mean
    fitted: Array
    residuals: Array
    coef: Array

    @classmethod
    def of(cls, design: Array, y: Array, weights: Array) -> "Reference":
        root = np.sqrt(weights / weights.mean())
        fit = sm.OLS(y * root, design * root[:, np.newaxis]).fit()
        fitted = design @ fit.params
        return cls(OLSInfluence(fit), fit.resid, fitted, y - fitted, fit.params)


def binned(values: Array, edges: list[float]) -> NDArray[np.intp]:
    """The bin of each value. One that is on an edge up to rounding is in the bin above, or in the last one."""
    places = np.searchsorted(edges, values + 1e-9 * np.diff(edges).min(), side="right") - 1
    return np.asarray(np.clip(places, 0, len(edges) - 2))


def check(found: dict[str, Any], expected: Reference, exog: Array, weights: Array) -> None:
    """Compare the diagnostics of a target, whose numeric columns are the last of `exog`."""
    influence, n = expected.influence, len(weights)
    distances = influence.cooks_distance[0]
    largest = np.argsort(-distances, kind="stable")[:20]
    assert [entry["row"] for entry in found["cooks_distance"]] == largest.tolist()
    for name, values in (
        ("distance", distances),
        ("leverage", influence.hat_matrix_diag),
        ("studentized_residual", influence.resid_studentized_external),
    ):
        assert_allclose([entry[name] for entry in found["cooks_distance"]], values[largest], rtol=RELATIVE)

    assert found["durbin_watson"] == pytest.approx(durbin_watson(expected.whitened), rel=RELATIVE)
    test = found["breusch_pagan"]
    lm, p_value, f, f_p_value = het_breuschpagan(expected.whitened, exog)
    assert test["df"] == exog.shape[1] - 1
    numbers = [test[name] for name in ("lm", "p_value", "f", "f_p_value")]
    assert_allclose(numbers, [lm, p_value, f, f_p_value], rtol=RELATIVE)

    plot = sm.ProbPlot(influence.resid_studentized_internal, a=3 / 8)
    points = np.searchsorted(plot.theoretical_quantiles, np.array(found["quantiles"]["theoretical"]) - 1e-9)
    assert len(points) == min(n, len(np.unique(points)))
    assert {0, n - 1} <= set(points)
    assert_allclose(found["quantiles"]["theoretical"], plot.theoretical_quantiles[points], rtol=RELATIVE, atol=1e-12)
    assert_allclose(found["quantiles"]["observed"], plot.sample_quantiles[points], rtol=RELATIVE)

    residuals = found["residuals"]
    rows, columns = (
        binned(values, residuals[name])
        for values, name in ((expected.fitted, "fitted_edges"), (expected.whitened, "residual_edges"))
    )
    counts = np.zeros((len(residuals["fitted_edges"]) - 1, len(residuals["residual_edges"]) - 1))
    np.add.at(counts, (rows, columns), 1)
    assert residuals["counts"] == counts.tolist()

    first = exog.shape[1] - len(found["partial_residuals"])
    assert {f"x{place}" for place in range(exog.shape[1] - first)} == set(found["partial_residuals"])
    coef = expected.coef[-(exog.shape[1] - 1) :]
    for name, partial in found["partial_residuals"].items():
        column = exog[:, 1 + int(name[1:])]
        values = expected.residuals + coef[int(name[1:])] * column
        places = binned(column, partial["edges"])
        for place, mean in enumerate(partial["means"]):
            inside = places == place
            assert partial["counts"][place] == inside.sum()
            if inside.any():
                assert mean == pytest.approx(np.average(values[inside], weights=weights[inside]), rel=RELATIVE)


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("fit_intercept", [True, False], ids=["with an intercept", "without one"])
@pytest.mark.parametrize("table", tables())
def test_diagnostics_are_those_of_statsmodels(table: str, fit_intercept: bool, weighted: bool) -> None:
    x, y = tables()[table]
    weights = np.random.default_rng(0).uniform(0.5, 2, len(x)) if weighted else None
    result = fit_of(x, y, weights, solver=Exact(fit_intercept=fit_intercept))

    found = look(result, x, y, weights, cuts=[7, 8, 15])

    exog = sm.add_constant(x)
    known = np.ones(len(x)) if weights is None else weights
    for target in range(y.shape[1]):
        expected = Reference.of(exog if fit_intercept else x, y[:, target], known)
        check(found["targets"][f"y{target}"], expected, exog, known)
    leverages, leverage = expected.influence.hat_matrix_diag, found["leverage"]
    assert leverage["maximum"] == pytest.approx(leverages.max(), rel=RELATIVE)
    assert leverage["threshold"] == pytest.approx(3 * leverages.mean(), rel=RELATIVE)
    assert leverage["counts"] == np.bincount(binned(leverages, leverage["edges"])).tolist()[-len(leverage["counts"]) :]
    assert found["unavailable"] == {}
    assert found["rows"] == len(x)


@pytest.mark.parametrize("fit_intercept", [True, False], ids=["with an intercept", "without one"])
def test_frequency_weights_repeat_rows(fit_intercept: bool) -> None:
    x, y = tables()["linnerud"]
    counts = np.random.default_rng(0).integers(1, 5, len(x)).astype(float)
    times = counts.astype(int)
    solver = Exact(fit_intercept=fit_intercept)
    found = look(fit_of(x, y, counts, solver=solver, kind="frequency"), x, y, counts, cuts=[9])
    repeated = np.repeat(x, times, axis=0), np.repeat(y, times, axis=0)
    expected = look(fit_of(*repeated, solver=solver), *repeated)

    assert found["rows"] == expected["rows"] == counts.sum()
    assert_same(found["leverage"], expected["leverage"])
    for name, target in found["targets"].items():
        other = expected["targets"][name]
        for part in ("residuals", "quantiles", "breusch_pagan", "partial_residuals"):
            assert_same(target[part], other[part])
        assert target["durbin_watson"] is None
        distances = {round(entry["distance"], 12) for entry in target["cooks_distance"]}
        assert distances >= {round(entry["distance"], 12) for entry in other["cooks_distance"]}
    assert "no order" in found["unavailable"]["targets.y0.durbin_watson"]


def assert_same(one: Any, other: Any) -> None:
    """Two parts of diagnostics are equal up to rounding."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)
    else:
        assert one == other
