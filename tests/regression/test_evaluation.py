"""Metrics of labelled rows: equal to numpy's, scikit-learn's and statsmodels' on all rows at once."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import max_error, mean_absolute_error, r2_score, root_mean_squared_error
from statsmodels.stats.weightstats import DescrStatsW

from app.regression.evaluation import NO_ROWS, NO_VARIATION, OUT_OF_RANGE, Calibration, ErrorSums, Scored

TOLERANCE = 1e-10
METRICS = ("rmse", "mae", "bias", "r2", "max_absolute_error")
INTERVALS = ("interval_coverage", "mean_interval_width")
Array = NDArray[np.float64]


def rows_of(seed: int, n: int, k: int = 2, *, mean: float = 1e6) -> Scored:
    random = np.random.default_rng(seed)
    observed = mean + random.normal(size=(n, k))
    predictions = observed + random.normal(scale=0.3, size=(n, k))
    observed[random.random((n, k)) < 0.1] = np.nan
    half = random.exponential(size=(n, k))
    intervals = np.stack([predictions - half, predictions + half], axis=-1)
    intervals[random.random(n) < 0.1] = np.nan
    return Scored(predictions, observed, random.exponential(size=n) + 0.1, intervals)


def batches(scored: Scored, ends: Sequence[int]) -> Iterator[tuple[slice, Scored]]:
    n = len(scored.weights)
    for start, end in zip([0, *ends], [*ends, n], strict=True):
        rows = slice(start, end)
        yield rows, scored.take(rows)


def expected(scored: Scored, target: int, rows: NDArray[np.bool_] | None = None) -> dict[str, float]:
    assert scored.intervals is not None
    used = ~np.isnan(scored.observed[:, target])
    used &= True if rows is None else rows
    y, p, w = scored.observed[used, target], scored.predictions[used, target], scored.weights[used]
    low, high = scored.intervals[used, target].T
    inside = ~np.isnan(low)
    covered = DescrStatsW((low <= y)[inside] & (y <= high)[inside], w[inside]).mean
    return {
        "rows": int(used.sum()),
        "rmse": root_mean_squared_error(y, p, sample_weight=w),
        "mae": mean_absolute_error(y, p, sample_weight=w),
        "bias": DescrStatsW(p - y, w).mean,
        "r2": r2_score(y, p, sample_weight=w),
        "max_absolute_error": max_error(y, p),
        "interval_rows": int(inside.sum()),
        "interval_coverage": covered,
        "mean_interval_width": np.average((high - low)[inside], weights=w[inside]),
    }


@given(st.integers(0, 2**32), st.lists(st.integers(0, 400), max_size=5).map(sorted))
def test_metrics_do_not_depend_on_the_batches_and_agree_with_scikit_learn_and_statsmodels(
    seed: int, ends: list[int]
) -> None:
    scored = rows_of(seed, 400)
    groups = np.random.default_rng(seed).integers(0, 3, 400)
    sums, by_group = ErrorSums(1, 2), ErrorSums(4, 2)
    for rows, batch in batches(scored, ends):
        sums.add(batch)
        by_group.add(batch, groups[rows])
    for target in range(2):
        whole = expected(scored, target)
        assert vars(sums.metrics(0, target)) == pytest.approx(whole, rel=TOLERANCE)
        assert vars(by_group.united([0, 1, 2, 3]).metrics(0, target)) == pytest.approx(whole, rel=TOLERANCE)
        for group in range(3):
            own = expected(scored, target, groups == group)
            assert vars(by_group.metrics(group, target)) == pytest.approx(own, rel=TOLERANCE)


def test_a_large_mean_costs_no_digits() -> None:
    near, far = rows_of(1, 1000, mean=0.0), rows_of(1, 1000, mean=0.0)
    shift = float(2**40)  # The residuals are multiples of 2^-13 then, which the shift does not round.
    near = near._replace(**{name: np.round(getattr(near, name) * 4096) / 4096 for name in ("predictions", "observed")})
    far = near._replace(predictions=near.predictions + shift, observed=near.observed + shift)
    results = []
    for scored in (near, far):
        sums = ErrorSums(1, 2)
        for _, batch in batches(scored, [10, 500]):
            sums.add(batch._replace(intervals=None))
        results.append(sums.metrics(0, 0))
    assert results[0].r2 == pytest.approx(results[1].r2, rel=1e-13)
    assert results[0].interval_coverage is None


@pytest.mark.parametrize(
    ("observed", "predicted", "reasons"),
    [
        ([], [], dict.fromkeys((*METRICS, *INTERVALS), NO_ROWS)),
        ([5.0, 5.0], [4.0, 5.0], {"r2": NO_VARIATION}),
        ([1e200, -1e200], [-1e200, 1e200], {"rmse": OUT_OF_RANGE, "r2": OUT_OF_RANGE}),
        ([1.7e308, 0.0], [-1.7e308, 0.0], dict.fromkeys(METRICS, OUT_OF_RANGE)),
    ],
)
def test_a_metric_that_does_not_exist_is_withheld_with_a_reason(
    observed: list[float], predicted: list[float], reasons: dict[str, str]
) -> None:
    sums = ErrorSums(1, 1)
    sums.add(Scored(np.array(predicted)[:, None], np.array(observed)[:, None], np.ones(len(observed))))
    metrics: Any = vars(sums.metrics(0, 0))
    assert {name for name in METRICS if metrics[name] is None} == {*reasons} - {*INTERVALS}
    assert sums.unavailable(0, 0) == reasons


def by_definition(p: Array, y: Array, w: Array) -> list[tuple[int, int, float, float]]:
    """The deciles by numpy's quantiles, on all rows at once."""
    ordered, n = np.sort(p), len(p)
    boundaries = [ordered[-(-decile * n // 10) - 1] for decile in range(1, 10)]
    tenth = np.searchsorted(boundaries, p)

    def mean(values: Array, decile: int) -> float:
        return float(np.average(values[tenth == decile], weights=w[tenth == decile]))

    present = np.unique(tenth).tolist()
    return [(d + 1, int((tenth == d).sum()), mean(p, d), mean(y, d)) for d in present]


@given(st.integers(0, 2**32), st.integers(1, 300), st.sampled_from([1.0, 10.0, 1e9]))
def test_deciles_agree_with_those_of_all_rows_and_keep_equal_predictions_together(
    seed: int, n: int, distinct: float
) -> None:
    random = np.random.default_rng(seed)
    p = np.floor(random.random(n) * distinct)
    y, w = p + random.normal(size=n), random.exponential(size=n) + 0.1
    calibration = Calibration(exact_rows=400)
    for start in range(0, n, 70):
        rows = slice(start, start + 70)
        calibration.add(p[rows], y[rows], w[rows])
    found = [(each.decile, each.rows, each.mean_predicted, each.mean_observed) for each in calibration.deciles()]
    assert calibration.is_exact
    assert np.array(found, dtype=float) == pytest.approx(np.array(by_definition(p, y, w)), rel=TOLERANCE, abs=TOLERANCE)
    if distinct == 1e9 and n % 10 == 0:
        edges = np.quantile(p, np.arange(1, 10) / 10, method="closest_observation")
        assert len(edges) == len(found) - 1
        assert {each.rows for each in calibration.deciles()} == {n // 10}


@pytest.mark.parametrize("order", ["random", "rising", "falling", "alternating"])
def test_beyond_the_limit_deciles_are_close_in_any_order_and_memory_is_bounded(order: str) -> None:
    n, limit = 50_000, 1000
    random = np.random.default_rng(3)
    p = random.normal(size=n)
    if order != "random":
        p = np.sort(p) if order == "rising" else np.sort(p)[::-1]
    if order == "alternating":
        p = np.stack([p[: n // 2], p[: n // 2 - 1 : -1]]).T.ravel()
    y = p**2
    calibration = Calibration(exact_rows=limit)
    for start in range(0, n, 700):
        calibration.add(p[start : start + 700], y[start : start + 700], np.ones(len(p[start : start + 700])))
        assert sum(map(len, calibration._parts)) <= 2 * limit + 700
    deciles = calibration.deciles()
    assert not calibration.is_exact
    assert sum(each.rows for each in deciles) == n
    for found, (_, rows, predicted, observed) in zip(deciles, by_definition(p, y, np.ones(n)), strict=True):
        assert found.rows == pytest.approx(rows, rel=0.05)
        assert found.mean_predicted == pytest.approx(predicted, abs=0.03)
        assert found.mean_observed == pytest.approx(observed, abs=0.08)


def test_a_few_distinct_predictions_stay_exact_for_any_number_of_rows() -> None:
    calibration = Calibration(exact_rows=100)
    for start in range(0, 10_000, 500):
        p = np.arange(start, start + 500) % 7 / 7.0
        calibration.add(p, p, np.ones(500))
    assert calibration.is_exact
    assert sum(each.rows for each in calibration.deciles()) == 10_000
