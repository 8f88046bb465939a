"""Statistics for another site give the same model, and have no value of a row."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from trained import model_from

from app.regression.disclosure import upper_bound, without_row_values
from app.regression.solvers import Exact
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e10])
def test_the_model_predicts_the_same_without_ranges(offset: float) -> None:
    x = RNG.normal(size=(300, 3)) + offset
    y = (x - offset) @ [[1.0], [2.0], [-3.0]] + RNG.normal(scale=0.1, size=(300, 1))
    statistics = summarise([TrainingBatch(x, y)])

    found, expected = model_from(without_row_values(statistics), Exact()), model_from(statistics, Exact())

    assert found.unknown_ranges.all()
    assert_allclose(found.predict(x), expected.predict(x), rtol=0, atol=1e-12 * max(1.0, offset / 1e4))
    assert_allclose(found.leverage(x), expected.leverage(x), rtol=1e-9)
    assert not found.extrapolation(x + 100).outside.any()
    assert found.extrapolation(x + 100).flag.all()


def test_constant_columns_and_columns_of_any_size_are_kept() -> None:
    x = np.column_stack([np.full(50, 7.0), RNG.normal(size=50) * 1e-120, RNG.normal(size=50) * 1e120])
    statistics = summarise([TrainingBatch(x, x[:, 1:2] * 1e120)])

    found = without_row_values(statistics)

    assert found.shift[0] == 7.0
    assert not found.factor[1:, 1].any()
    assert_allclose(found.mean, statistics.mean, rtol=1e-12)
    assert not np.isin(found.shift[1:], x).any()


def test_a_bound_of_rows_is_a_bound_in_every_direction() -> None:
    factor = np.triu(RNG.normal(size=(6, 6))) * [1, 1e3, 1e-3, 0, 1, 1]

    found = upper_bound(factor)

    directions = RNG.normal(size=(6, 1000)) / np.maximum(np.linalg.norm(factor, axis=0), 1e-9)[:, np.newaxis]
    assert (np.linalg.norm(found @ directions, axis=0) >= np.linalg.norm(factor @ directions, axis=0)).all()
    assert (np.frexp(found.diagonal()[[0, 1, 2, 4, 5]])[0] == 0.5).all()
