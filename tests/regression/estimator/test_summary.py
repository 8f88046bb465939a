"""The summary table shows the numbers of statsmodels, with R's AIC and BIC, and the reasons of those it withholds."""

import re
from itertools import pairwise

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.datasets import load_diabetes

from app.regression import LinearRegressor


def value(table: str, label: str) -> str:
    found = re.search(rf"{re.escape(label)} +(\S+)", table)
    assert found is not None, table
    return found[1]


def five_digits(*numbers: float) -> list[str]:
    return [f"{number:.5g}" for number in numbers]


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_table_has_the_numbers_of_statsmodels(fit_intercept: bool) -> None:
    x, y = load_diabetes(return_X_y=True)
    design = sm.add_constant(x) if fit_intercept else x
    theirs = sm.OLS(y, design).fit()

    table = LinearRegressor(fit_intercept=fit_intercept).fit(x, y).summary(level=0.9)

    bounds = theirs.conf_int(alpha=0.1)
    names = ["intercept"] * fit_intercept + [f"x{index}" for index in range(10)]
    for row, name in enumerate(names):
        line = next(line for line in table.splitlines() if line.split()[:1] == [name])
        numbers = (theirs.params, theirs.bse, theirs.tvalues, theirs.pvalues, bounds[:, 0], bounds[:, 1])
        assert line.split()[1:] == five_digits(*(column[row] for column in numbers))
    parameters = design.shape[1] + 1  # R counts the variance too
    for label, number in {
        "Observations": len(y),
        "Residual df": theirs.df_resid,
        "  R-squared": theirs.rsquared,
        "Adjusted R-squared": theirs.rsquared_adj,
        "Residual std error": np.sqrt(theirs.mse_resid),
        f"F (10, {theirs.df_resid:g})": theirs.fvalue,
        "Prob (F)": theirs.f_pvalue,
        "Log-likelihood": theirs.llf,
        "AIC": -2 * theirs.llf + 2 * parameters,
        "BIC": -2 * theirs.llf + parameters * np.log(len(y)),
    }.items():
        assert value(table, label) == five_digits(number)[0], label
    assert "[0.05" in table
    assert ("R-squared and F are about zero" in table) is not fit_intercept


def test_numbers_that_are_not_known_are_withheld_with_the_reason() -> None:
    x, y = load_diabetes(return_X_y=True)

    table = LinearRegressor(l2=1).fit(x, y).summary()

    assert value(table, "Residual std error") == value(table, "AIC") == "-"
    assert value(table, "x0") != "-"
    assert table.endswith("Withheld: The model was fitted with a ridge penalty, which biases its coefficients.")


def test_a_likelihood_is_withheld_after_a_decay() -> None:
    x, y = load_diabetes(return_X_y=True)

    table = LinearRegressor().fit(x[:200], y[:200]).update(x[200:], y[200:], decay=0.5).summary()

    assert value(table, "AIC") == "-"
    assert value(table, "Residual std error") != "-"
    assert "Likelihood withheld: Decay reduced the weights" in table


def test_columns_that_depend_on_each_other_are_named_by_the_rank() -> None:
    x = np.arange(10.0)[:, np.newaxis] ** [1, 2]

    table = LinearRegressor().fit(np.hstack([x, x[:, :1]]), np.sqrt(x)).summary()

    assert "The rows determine only 3 of 4 coefficients." in table
    assert value(table, "x0") != "-"


def test_lines_of_a_table_are_aligned_and_shown_as_they_are() -> None:
    x, y = load_diabetes(return_X_y=True)

    table = LinearRegressor().fit(x, y).summary()

    coefficients = table.splitlines()[-12:]
    assert all(len(a) == len(b) for a, b in pairwise(line for line in coefficients if line))
    assert repr(table) == str(table)
