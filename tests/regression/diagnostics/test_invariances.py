"""Diagnostics do not depend on how rows are divided into batches, on units or on the order of rows."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from looks import Array, diagnosed, fit_of, look
from numpy.testing import assert_allclose

ROWS = 60


def rows_of(seed: int, targets: int = 2) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(ROWS, 3)) * [1, 10, 0.1] + [0, 100, 0]
    return x, x @ random.normal(size=(3, targets)) + random.normal(size=(ROWS, targets)) + 5


def numbers(value: Any) -> list[float]:
    """All numbers of a part of the diagnostics, in their order."""
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [float("nan") if value is None else value] if not isinstance(value, str) else []


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, ROWS), max_size=6),
    weighted=st.booleans(),
    keeps=st.booleans(),
)
def test_any_division_into_batches_gives_the_same_diagnostics(
    seed: int, cuts: list[int], weighted: bool, keeps: bool
) -> None:
    x, y = rows_of(seed)
    weights = np.random.default_rng(seed).uniform(0.2, 3, ROWS) if weighted else None
    result = fit_of(x, y, weights)
    whole = look(result, x, y, weights, keeps_residuals=keeps)
    parts = look(result, x, y, weights, cuts=cuts, keeps_residuals=keeps)
    assert_allclose(numbers(parts), numbers(whole), rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 1000),
    feature=st.integers(-200, 200),
    target=st.integers(-200, 200),
    shift=st.integers(-1000, 1000),
)
def test_units_and_origins_change_only_what_is_in_them(seed: int, feature: int, target: int, shift: int) -> None:
    x, y = rows_of(seed, targets=1)
    unit = 2.0**target
    one, other = diagnosed(x, y), diagnosed((x + shift) * 2.0**feature, (y - shift) * unit)
    first, second = one["targets"]["y0"], other["targets"]["y0"]
    assert one["unavailable"] == other["unavailable"] == {}
    assert_allclose(numbers(other["leverage"]), numbers(one["leverage"]), rtol=1e-7)
    for part in ("quantiles", "cooks_distance", "durbin_watson", "breusch_pagan"):
        assert_allclose(numbers(second[part]), numbers(first[part]), rtol=1e-6, atol=1e-9)
    assert second["residuals"]["counts"] == first["residuals"]["counts"]
    edges = np.array(first["residuals"]["residual_edges"])
    assert_allclose(np.array(second["residuals"]["residual_edges"]) / unit, edges, rtol=1e-7, atol=1e-7)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000))
def test_the_order_of_rows_matters_only_for_their_numbers_and_the_correlation_of_successive_ones(seed: int) -> None:
    x, y = rows_of(seed)
    order = np.random.default_rng(seed).permutation(ROWS)
    one, other = diagnosed(x, y), diagnosed(x[order], y[order])
    assert_allclose(numbers(other["leverage"]), numbers(one["leverage"]), rtol=1e-9)
    for name, first in one["targets"].items():
        second = other["targets"][name]
        for part in ("residuals", "quantiles", "breusch_pagan", "partial_residuals"):
            assert_allclose(numbers(second[part]), numbers(first[part]), rtol=1e-8, atol=1e-11)
        assert [order[entry["row"]] for entry in second["cooks_distance"]] == [
            entry["row"] for entry in first["cooks_distance"]
        ]


def test_sketched_quantiles_are_within_their_stated_error_of_all_residuals() -> None:
    random = np.random.default_rng(3)
    x = random.normal(size=(20_000, 2))
    y = x.sum(axis=1, keepdims=True) + random.standard_t(2, size=(20_000, 1))
    result = fit_of(x, y)
    kept, sketched = (
        look(result, x, y, keeps_residuals=keeps)["targets"]["y0"]["quantiles"] for keeps in (True, False)
    )
    assert (kept["relative_error"], sketched["relative_error"]) == (0, 2**-11)
    assert kept["theoretical"] == sketched["theoretical"]
    assert 90 <= len(kept["observed"]) <= 101
    assert_allclose(sketched["observed"], kept["observed"], rtol=2**-11)


def test_an_outlier_does_not_squeeze_the_other_rows_into_one_bin() -> None:
    x, y = rows_of(1, targets=1)
    x[7] *= 1e6
    y[7] += 1e7
    residuals = diagnosed(x, y)["targets"]["y0"]["partial_residuals"]["x0"]
    assert residuals["edges"][-1] == pytest.approx(x[:, 0].max())
    assert sum(residuals["counts"]) == ROWS
    plot = diagnosed(x[:, 1:2] * 0 + np.arange(ROWS)[:, np.newaxis], np.where(np.arange(ROWS) == 7, 1e9, y.T).T)
    assert sum(map(sum, plot["targets"]["y0"]["residuals"]["counts"])) == ROWS
