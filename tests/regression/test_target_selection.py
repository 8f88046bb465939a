"""A model of some targets has the numbers that the model of all has for them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from trained import model_of

from app.regression.hypothesis_tests import infer, variance_inflation
from app.regression.metrics import likelihood
from app.regression.solvers import Exact
from app.regression.target_selection import with_targets

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(2, 1, (60, 4))
Y = X @ RANDOM.normal(size=(4, 5)) + RANDOM.normal(size=(60, 5)) * [1, 10, 1e-3, 1e6, 1]


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("kept", [(0,), (3, 1), (0, 1, 2, 3, 4)])
def test_a_model_of_some_targets_has_their_numbers(kept: tuple[int, ...], fit_intercept: bool) -> None:
    model = model_of(X, Y, solver=Exact(fit_intercept=fit_intercept))
    part, chosen = with_targets(model, kept), list(kept)

    assert part.targets == tuple(model.targets[index] for index in kept)
    whole, found = infer(model), infer(part)
    for name in ("standard_errors", "t_values", "p_values", "lower", "upper", "residual_deviation", "f_values"):
        assert_allclose(getattr(found, name), getattr(whole, name)[chosen], rtol=1e-9, err_msg=name)
    assert_allclose(likelihood(part).aic, likelihood(model).aic[chosen], rtol=1e-12)
    assert_allclose(variance_inflation(part), variance_inflation(model))
    assert_allclose(part.interval(X, 0.9), model.interval(X, 0.9)[:, chosen], rtol=1e-9)
    assert_allclose(part.contributions(X), model.contributions(X)[:, chosen])
    assert_allclose(part.mean_prediction, model.mean_prediction[chosen])
    total = model.statistics.total_norms(centred=fit_intercept)
    assert_allclose(part.statistics.total_norms(centred=fit_intercept), total[chosen], rtol=1e-12)
    assert part.design is model.design
