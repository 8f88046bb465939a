"""Changes of coefficients, in standard errors of the first of two models."""

import math
from dataclasses import replace

import numpy as np
import pytest
from trained import model_of

from app.regression.coefficient_changes import change_in_standard_errors, coefficients
from app.regression.hypothesis_tests import infer


def test_standard_errors_are_those_of_the_inference() -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(size=(40, 3)), random.normal(size=(40, 2))
    model = model_of(x, y, random.exponential(size=40))
    inference = infer(model)
    for index, target in enumerate(model.targets):
        found = coefficients(model, target)
        assert found.standard_errors.tolist() == inference.standard_errors[index].tolist()
        assert found.values.tolist() == [model.intercept[index], *model.coef[index]]
    withheld = coefficients(replace(model, inference_unavailable="because"), "y0")
    assert np.isnan(withheld.standard_errors).all()


def test_the_change_is_in_standard_errors_of_the_base() -> None:
    assert change_in_standard_errors((2.0, 0.5), (1.0, 0.1)) == (-1.0, -2.0)
    difference, ratio = change_in_standard_errors((2.0, 0.0), (3.0, 0.1))
    assert (difference, math.isnan(ratio)) == (1.0, True)
    assert change_in_standard_errors((1.7e308, 1.0), (-1.7e308, 1.0)) == pytest.approx((-math.inf, -math.inf))
