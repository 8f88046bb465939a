"""The division of rows into the folds of a cross-validation.

A row's fold depends on the seed and the row's number, or on the value of its group, and on nothing else. It is the same
on every platform and in every version.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from app.regression.sufficient_statistics import Array
from app.regression.training_batch import TrainingBatch

# SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014): its increment and mixer.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT = np.uint64(31)


@dataclass(frozen=True)
class FoldOptions:
    """A cross-validation of `count` folds: random ones, or the `fold` of each batch if they are by group."""

    count: int
    seed: int = 0
    by_group: bool = False
    choose_l2: bool = False  # replace the solver's penalty by the one with the smallest cross-validated error
    apart: bool = False  # also validate the data apart from the folds of the base


def permutations(folds: int, seed: int, first: int, end: int) -> NDArray[np.intp]:
    """Return the place of each fold's row in each of the blocks of `folds` rows from `first` to `end`, (blocks, folds).

    The random numbers of a block are the outputs of SplitMix64 for its rows, counted from a start that is mixed from
    the seed. The order that sorts them is the permutation.
    """
    keys = np.arange(first * folds, end * folds, dtype=np.uint64)
    keys *= _GAMMA
    keys += _mixed(np.array([seed], dtype=np.uint64))
    return np.asarray(_mixed(keys).reshape(-1, folds).argsort(axis=1))


def _mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of keys in place, and return them."""
    for shift, factor in _MIX:
        keys ^= keys >> shift
        keys *= factor
    keys ^= keys >> _LAST_SHIFT
    return keys


def group_fold(group: str, folds: int, seed: int) -> int:
    """Return the fold of a group: the first 64 bits of BLAKE2b, keyed by the seed, modulo the number of folds."""
    digest = hashlib.blake2b(group.encode(errors="surrogatepass"), digest_size=8, key=seed.to_bytes(8, "little"))
    return int.from_bytes(digest.digest(), "little") % folds


def divide(batch: TrainingBatch, folds: int, seed: int, row: int) -> Iterator[tuple[int, TrainingBatch]]:
    """Divide a batch, whose rows have positive weights and whose first row has the number `row`, into folds.

    Yields the number and the rows, in their order, of each fold that has rows in the batch.
    """
    order, ends = _by_fold(batch, folds, seed, row)
    x, y = _reordered(batch.x, order), _reordered(batch.y, order)
    weights = None if batch.sample_weight is None else batch.sample_weight[order]
    for fold, (start, end) in enumerate(pairwise([0, *ends])):
        if start < end:
            rows = slice(start, end)
            yield fold, TrainingBatch(x[rows], y[rows], None if weights is None else weights[rows])


def _by_fold(batch: TrainingBatch, folds: int, seed: int, row: int) -> tuple[NDArray[np.intp], list[int]]:
    """Return the indices of the rows fold by fold, and for each fold the number of rows in it and those before it."""
    if batch.fold is not None:
        return np.argsort(batch.fold, kind="stable"), np.bincount(batch.fold, minlength=folds).cumsum().tolist()
    count = len(batch.x)
    first, end = row // folds, -(-(row + count) // folds)
    places = np.ascontiguousarray(permutations(folds, seed, first, end).T)
    places += np.arange(first, end) * folds - row
    # Only the first and the last permutation may have rows that are not in the batch.
    outside = np.zeros(places.shape, dtype=bool)
    outside[:, :1] = places[:, :1] < 0
    outside[:, -1:] |= places[:, -1:] >= count
    ends = (end - first - outside.sum(axis=1)).cumsum().tolist()
    return np.delete(places.ravel(), np.flatnonzero(outside)), ends


def _reordered(rows: Array, order: NDArray[np.intp]) -> Array:
    """Return the rows in this order, in the same memory layout."""
    if rows.strides[0] > rows.itemsize:
        return rows.take(order, axis=0)
    columns = np.empty((rows.shape[1], len(order)))
    for column, place in zip(rows.T, columns, strict=True):
        column.take(order, out=place, mode="clip")  # another mode would buffer the output
    return columns.T
