"""The order of a sum does not depend on how many rows there are, or on how they lie in memory."""

from typing import TypeAlias

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from app.regression.ordered_sum import MAX_ORDERED, OrderedSum

Array: TypeAlias = NDArray[np.float64]

SHAPES = [(1, 1), (2, 1), (3, 2), (9, 1), (MAX_ORDERED, 1), (MAX_ORDERED // 2, 2), (2, MAX_ORDERED // 2)]


def one_by_one(x: Array, weights: Array, start: Array, centre: Array | None) -> list[list[float]]:
    """The definition, one operation at a time."""
    found = []
    for row in x.tolist():
        sums = []
        for line, first in zip(weights.tolist(), start.tolist(), strict=True):
            total = first
            for index, (weight, value) in enumerate(zip(line, row, strict=True)):
                deviation = value if centre is None else value - float(centre[index])
                total += weight * deviation
            sums.append(total)
        found.append(sums)
    return found


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("p", "k"), SHAPES)
def test_every_number_of_rows_in_any_layout_is_summed_from_left_to_right(p: int, k: int, centred: bool) -> None:
    random = np.random.default_rng(p * k + centred)
    weights, start = random.normal(size=(k, p)) * 10.0 ** random.integers(-3, 4, (k, p)), random.normal(size=k)
    centre = random.normal(size=p) if centred else None
    x = random.normal(size=(1500, p)) * 10.0 ** random.integers(-3, 4, p)
    expected = np.array(one_by_one(x, weights, start, centre))
    ordered = OrderedSum(weights, start, centre)
    for rows in (1, 2, 3, 7, 64, 65, 127, 129, 640, 1024, 1025, 1500):
        for block in (x[:rows], np.asfortranarray(x)[:rows], np.asfortranarray(x[:rows]), x[::-1][-rows:][::-1]):
            assert_array_equal(ordered.sum_rows(block), expected[:rows])
    assert_array_equal(ordered.sum_lists(x[:50].tolist()), expected[:50])
    assert ordered.sum_rows(x[:0]).shape == (0, k)


def test_blocks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    weights, start, x = random.normal(size=(2, 5)), random.normal(size=2), random.normal(size=(5000, 5))
    whole = OrderedSum(weights, start, None).sum_rows(x)
    monkeypatch.setattr("app.regression.ordered_sum.CACHED", 1)
    assert_array_equal(OrderedSum(weights, start, None).sum_rows(x), whole)
    monkeypatch.setattr("app.regression.ordered_sum.SMALL", 10**6)
    assert_array_equal(OrderedSum(weights, start, None).sum_rows(x), whole)


def test_the_sum_of_few_does_not_compensate_for_rounding_as_later_versions_of_python_do() -> None:
    # The builtin `sum` of Python 3.12 gives 2.0 here.
    ordered = OrderedSum(np.array([[1.0, 1.0, 1.0]]), np.array([1.0]), None)
    assert ordered.sum_lists([[1e100, 1.0, -1e100]]) == [[0.0]]
    assert ordered.sum_rows(np.array([[1e100, 1.0, -1e100]] * 3)).tolist() == [[0.0]] * 3
