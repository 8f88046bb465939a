"""Segments of rows that several threads add up, in chunks so small that every branch is taken."""

import threading
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from app.regression import streaming_qr
from app.regression.cross_products import Coordinates, Workspace
from app.regression.errors import ValuesTooLarge
from app.regression.estimator import LinearRegressor
from app.regression.fit import ArrayData, fit_model
from app.regression.folds import FoldOptions
from app.regression.solvers import Exact
from app.regression.solvers.base import FitObserver
from app.regression.streaming_qr import MIN_SEGMENTS
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.summary_plan import SummaryPlan, summarise_batches
from app.regression.training_batch import TrainingBatch

ROWS = 3000
FEATURES = ("a", "b", "c")
FIELDS = ("rows", "shift", "scale", "factor", "minimum", "maximum", "log_weights", "operations", "indicator_rows")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start threads for chunks of twelve rows."""
    monkeypatch.setattr(streaming_qr, "CHUNK_BYTES", 0)
    monkeypatch.setattr(streaming_qr, "MIN_CHUNKS", 0)


def rows_of(kind: str) -> TrainingBatch:
    random = np.random.default_rng(0)
    x, weights = random.normal(size=(ROWS, 3)), None
    if kind == "correlated":
        x[:, 2] = x[:, 1] + 1e-3 * x[:, 2]
    elif kind == "drifting":
        x *= np.logspace(0, 6, ROWS)[:, np.newaxis]
    elif kind == "collinear":
        x[:, 2] = x[:, 1]
    elif kind == "extreme":
        x[:, 1] *= 1e200
        x[2000:, 2] *= 1e-200
    elif kind == "constant at first":
        x[:2500, 2] = 7.0
    elif kind == "with outliers":
        x[[1234, 1235, 2321], 1] = 1e10
    elif kind == "weighted":
        weights = random.uniform(0.1, 10, ROWS)
    y = x @ np.ones((3, 2)) + random.normal(size=(ROWS, 2))
    return TrainingBatch(x, y, weights)


def in_batches(rows: TrainingBatch, size: int) -> Iterator[TrainingBatch]:
    for start in range(0, len(rows.x), size):
        yield rows.select(slice(start, start + size))


def assert_same_bits(found: SufficientStatistics, expected: SufficientStatistics) -> None:
    for field in FIELDS:
        assert_array_equal(getattr(found, field), getattr(expected, field))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("size", [ROWS, 500])
@pytest.mark.parametrize(
    "kind",
    ["plain", "correlated", "drifting", "collinear", "extreme", "constant at first", "with outliers", "weighted"],
)
def test_any_number_of_threads_gives_the_same_bits(kind: str, size: int) -> None:
    rows, plan = rows_of(kind), SummaryPlan(FEATURES)
    expected = summarise_batches(plan, in_batches(rows, size))[0]

    for threads in (2, 5):
        assert_same_bits(summarise_batches(plan, in_batches(rows, size), threads=threads)[0], expected)


@pytest.mark.usefixtures("small_chunks")
def test_folds_and_levels_have_the_same_bits_too() -> None:
    rows = rows_of("plain")
    levels = np.random.default_rng(1).integers(0, 41, ROWS)
    rows = rows._replace(x=np.column_stack([rows.x, levels[:, np.newaxis] == np.arange(1, 41)]))
    names = tuple(f"x{place}" for place in range(43))
    plan = SummaryPlan(names, blocks=(slice(3, 43),), folds=FoldOptions(3))
    expected = summarise_batches(plan, in_batches(rows, 2000))

    found = summarise_batches(plan, in_batches(rows, 2000), threads=3)

    for fold in range(3):
        assert_same_bits(found[fold], expected[fold])


@pytest.mark.usefixtures("small_chunks")
def test_segments_are_added_up_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    both_at_work, products = threading.Barrier(2), Coordinates.products

    def meet(self: Coordinates, workspace: Workspace) -> NDArray[np.float64] | None:
        if threading.current_thread() is not threading.main_thread():
            both_at_work.wait(timeout=30)
        return products(self, workspace)

    monkeypatch.setattr(Coordinates, "products", meet)
    rows = rows_of("plain").select(slice(12 + MIN_SEGMENTS * 12))  # a chunk, and an even number of segments

    assert summarise_batches(SummaryPlan(FEATURES), [rows], threads=2)[0].rows == len(rows.x)


def test_few_rows_start_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread was started"))

    fit_model(ArrayData(*rows_of("plain")[:2], FEATURES, ("y", "z")), Exact(), threads=8)


@pytest.mark.usefixtures("small_chunks")
def test_batches_that_reuse_their_memory_are_added_before_the_next_is_requested() -> None:
    rows = rows_of("plain")
    x, y = np.empty((1000, 3)), np.empty((1000, 2))

    def batches() -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        for part in in_batches(rows, len(x)):
            x[:], y[:] = part.x, part.y
            yield x, y

    found = LinearRegressor().fit(batches())

    assert_array_equal(found.coef_, LinearRegressor().fit(iter([part[:2] for part in in_batches(rows, 1000)])).coef_)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("blocks", [(), (slice(0, 40),)])
def test_a_deviation_that_is_too_large_names_its_column(blocks: tuple[slice, ...]) -> None:
    rows = rows_of("plain")
    features = np.column_stack([np.zeros((ROWS, 40)), rows.x])
    features[:, 41] = -1.7e308
    features[2000, 41] = 1.7e308  # its distance to the others is infinite
    summarise = partial(summarise_batches, SummaryPlan(tuple(map(str, range(43))), blocks=blocks), threads=2)

    with pytest.raises(ValuesTooLarge) as found:
        summarise(in_batches(rows._replace(x=features), 500))

    assert found.value.column == 41


@pytest.mark.usefixtures("small_chunks")
def test_a_fit_that_is_ended_leaves_no_threads() -> None:
    class Ended(Exception):
        pass

    class Ending(FitObserver):
        def rows_read(self, rows: int) -> None:
            if rows >= ROWS // 2:
                raise Ended

    class Batches(ArrayData):
        def batches(self) -> Iterator[TrainingBatch]:
            return in_batches(TrainingBatch(self.x, self.y), 500)

    before = threading.active_count()
    with pytest.raises(Ended):
        fit_model(Batches(*rows_of("plain")[:2], FEATURES, ("y", "z")), Exact(), observer=Ending(), threads=3)
    assert threading.active_count() == before
