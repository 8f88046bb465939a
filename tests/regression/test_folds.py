"""Which fold a row is in."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from app.regression.cross_validation import Folds
from app.regression.folds import divide, group_fold, permutations
from app.regression.solvers import Exact
from app.regression.summaries import summarise_folds
from app.regression.training_batch import TrainingBatch

MASK = 2**64 - 1


def mixed(key: int) -> int:
    """SplitMix64's mixer, from the paper."""
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    key = (key ^ (key >> 27)) * 0x94D049BB133111EB & MASK
    return key ^ (key >> 31)


def folds_of(rows: int, folds: int, seed: int, cuts: list[int], first: int = 0) -> list[int]:
    """The fold of each row, the rows coming in blocks."""
    found = np.full(rows, -1)
    numbers = np.arange(float(rows))[:, np.newaxis]
    start = 0
    for part in np.split(numbers, sorted(cuts)):
        for fold, mine in divide(TrainingBatch(part, part), folds, seed, first + start):
            found[mine.x[:, 0].astype(int)] = fold
        start += len(part)
    return list(map(int, found))


def test_the_permutations_are_the_order_of_the_numbers_of_splitmix64() -> None:
    found = permutations(7, 3, 2, 5)

    start = mixed(3)
    numbers = [mixed((row * 0x9E3779B97F4A7C15 + start) & MASK) for row in range(14, 35)]
    for block, places in enumerate(found):
        mine = numbers[7 * block : 7 * block + 7]
        assert places.tolist() == sorted(range(7), key=mine.__getitem__)


def test_the_folds_of_rows_and_groups_never_change() -> None:
    assert permutations(5, 0, 0, 2).tolist() == [[0, 3, 2, 1, 4], [0, 2, 4, 1, 3]]
    assert permutations(5, 1, 0, 2).tolist() == [[2, 3, 0, 1, 4], [3, 0, 4, 2, 1]]
    assert [group_fold(group, 10, 0) for group in ("7", "site a", "")] == [7, 1, 3]
    digest = hashlib.blake2b(b"site a", digest_size=8, key=bytes([3, 0, 0, 0, 0, 0, 0, 0])).digest()
    assert group_fold("site a", 10, 3) == int.from_bytes(digest, "little") % 10


@settings(max_examples=60)
@given(
    st.integers(1, 200),
    st.integers(2, 30),
    st.integers(0, 2**31 - 1),
    st.lists(st.integers(0, 200), max_size=4),
    st.integers(0, 200),
)
def test_consecutive_rows_are_a_permutation_of_the_folds_for_any_division_into_batches(
    rows: int, folds: int, seed: int, cuts: list[int], first: int
) -> None:
    found = folds_of(rows, folds, seed, [min(cut, rows) for cut in cuts], first)

    assert found == folds_of(rows, folds, seed, [], first)
    for start in range(-first % folds, rows - folds + 1, folds):
        assert sorted(found[start : start + folds]) == list(range(folds))
    if first == 0:
        sizes = np.bincount(found, minlength=folds)
        assert sizes.max() - sizes.min() <= 1
        more = folds_of(rows + 7, folds, seed, [])
        assert more[:rows] == found


def test_rows_of_weight_zero_take_no_place_in_the_folds() -> None:
    random = np.random.default_rng(0)
    x, y, weights = random.normal(size=(40, 2)), random.normal(size=(40, 1)), random.integers(0, 3, 40).astype(float)
    used = weights > 0

    found = summarise_folds(
        [TrainingBatch(x[:11], y[:11], weights[:11]), TrainingBatch(x[11:], y[11:], weights[11:])], 4
    )
    expected = summarise_folds([TrainingBatch(x[used], y[used], weights[used])], 4)

    assert list(found) == list(expected)
    for fold, mine in expected.items():
        assert found[fold].rows == mine.rows
        assert_allclose(found[fold].mean, mine.mean)
        assert found[fold].total_weight == pytest.approx(mine.total_weight)


def test_ten_sites_in_rotation_are_predicted_with_the_smallest_possible_error() -> None:
    """By row number modulo 10, each fold was a site of its own, and R squared -1.2."""
    random = np.random.default_rng(0)
    sites = np.tile(np.eye(10), (30, 1))
    y = sites @ np.arange(10.0)[:, np.newaxis] + 0.3 * random.normal(size=(300, 1))

    found = Folds(summarise_folds([TrainingBatch(sites[:, :9], y)], 10)).validate(Exact())

    assert found.r2[0] > 0.98


def test_rows_of_one_group_are_in_its_fold() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(50, 1))
    fold = random.choice([0, 2, 5], 50).astype(np.intp)

    found = summarise_folds(
        [TrainingBatch(x[:20], x[:20], None, fold[:20]), TrainingBatch(x[20:], x[20:], None, fold[20:])], 7
    )

    assert list(found) == [0, 2, 5]
    for number, mine in found.items():
        assert mine.rows == (fold == number).sum()
        assert_allclose(mine.mean[0], x[fold == number].mean())


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_keep_their_values_in_any_memory_layout(order: str) -> None:
    rows = np.asarray(np.arange(60.0).reshape(20, 3), order=order)  # type: ignore[call-overload]
    parts = list(divide(TrainingBatch(rows[:, :2], rows[:, 2:], rows[:, 0]), 6, 0, 0))

    together = np.vstack([np.column_stack([part.x, part.y]) for _, part in parts])
    assert_array_equal(together[together[:, 0].argsort()], rows)
    for _, part in parts:
        assert part.sample_weight is not None
        assert_array_equal(part.sample_weight, part.x[:, 0])
        assert (np.diff(part.x[:, 0]) > 0).all()
