"""The monitor: summaries of what versions served, over workers, restarts and stores."""

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_store import MemoryStore
from mixed import FEATURES, TABLE, rows_of, version_of_table
from service import wait_for
from trained import model_of, version_of

from app.errors import StoreUnavailable
from app.monitoring import monitor as module
from app.monitoring.comparison import MissingValues
from app.monitoring.history import Requests
from app.monitoring.monitor import Monitor
from app.monitoring.served_rows import MAX_PAIRED_COLUMNS
from app.monitoring.shared_histories import SharedHistories
from app.monitoring.taps import MAX_ROWS
from app.prediction.predictor import Predictor
from app.prediction.query import PredictionOptions, PredictionQuery
from app.registry.folder.publisher import FolderPublisher
from app.registry.version_file import Version
from app.regression.drift import MIN_ROWS
from app.regression.terms import expand, parse_terms
from app.storage.folder_store import FolderStore
from app.storage.store import Blob, BlobInfo, Store

DAY = 86_400.0


def version_of_numbers(columns: int = 3, rows: int = 400, **changes: Any) -> Version:
    random = np.random.default_rng(columns)
    x = random.normal(20, 3, (rows, columns))
    return version_of(model_of(x, x[:, :1] * 2 + random.normal(size=(rows, 1))), **changes)


class Workers:
    """Monitors of several workers with one state folder, which never run by themselves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counted: dict[str, Requests] = {}
        self._made: list[Monitor] = []

    def new(self, store: Store | None = None, folder: Path | None = None) -> Monitor:
        monitor = Monitor(
            FolderPublisher(self.folder / "models"),
            (folder or self.folder) / "monitoring",
            store,
            lambda model, counts: self.counted.setdefault(model, Requests()).add(counts),
        )
        monitor._shared._read_seconds = 0.0
        self._made.append(monitor)
        return monitor

    def die(self, monitor: Monitor) -> None:
        """Free what the kernel frees."""
        monitor._shared.close()

    def end(self) -> None:
        for monitor in self._made:
            self.die(monitor)


@pytest.fixture
def workers(models: Path, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(tmp_path)
    yield made
    made.end()


def serve(monitor: Monitor, version: Version, x: np.ndarray) -> None:
    monitor.note(version, x)
    monitor.flush()


def write(monitor: Monitor) -> None:
    monitor.flush()
    monitor._write()


def test_the_rows_of_two_workers_are_summed(workers: Workers) -> None:
    one, other, version = workers.new(), workers.new(), version_of_numbers()
    random = np.random.default_rng(1)
    first, second = random.normal(20, 3, (150, 3)), random.normal(24, 3, (250, 3))
    for monitor, rows in ((one, first), (other, second)):
        serve(monitor, version, rows)
        monitor.answered("crop-yield", failed=False)
        write(monitor)

    both = np.vstack([first, second])
    for monitor in (one, other):
        drift = monitor.drift(version, DAY)
        assert (drift.rows, drift.predicted_rows) == (400, 400)
        assert [column.served_mean for column in drift.columns.values()] == pytest.approx(both.mean(axis=0).tolist())
        assert [column.minimum for column in drift.columns.values()] == pytest.approx(both.min(axis=0).tolist())
        assert drift.extrapolated == version.model.extrapolation(both).flag.mean()
        assert drift.verdict == "drifted"
        assert set(drift.drifted) == {"x0", "x1", "x2"}
        assert monitor.traffic("crop-yield").requests == 2


def test_replicas_with_folders_of_their_own_are_summed_through_their_store(workers: Workers, tmp_path: Path) -> None:
    store, version = FolderStore(tmp_path / "store"), version_of_numbers()
    replicas = [workers.new(store, tmp_path / name) for name in ("one", "other")]
    for replica in replicas:
        serve(replica, version, np.full((10, 3), 20.0))
        write(replica)

    assert [replica.drift(version, DAY).rows for replica in replicas] == [20, 20]
    assert len(list(store.list_blobs("monitoring/served/"))) == 2


class FailingStore(MemoryStore):
    """A bucket that can be out of reach."""

    is_reached = True

    def put(self, key: str, content: bytes) -> str:
        self._check()
        return super().put(key, content)

    def get(self, key: str) -> Blob:
        self._check()
        return super().get(key)

    def list_blobs(self, prefix: str, *, after: str = "") -> Iterator[BlobInfo]:
        self._check()
        return super().list_blobs(prefix, after=after)

    def _check(self) -> None:
        if not self.is_reached:
            raise StoreUnavailable("the bucket does not answer")


def test_a_bucket_that_does_not_answer_delays_the_sum_and_no_reader(workers: Workers, tmp_path: Path) -> None:
    store, version = FailingStore(), version_of_numbers()
    one, other = (workers.new(store, tmp_path / name) for name in ("one", "other"))
    for monitor in (one, other):
        serve(monitor, version, np.full((10, 3), 20.0))
        write(monitor)
    one._shared.poll()
    assert one.drift(version, DAY).rows == 20

    store.is_reached = False
    serve(other, version, np.full((5, 3), 20.0))
    write(other)
    one._shared.poll()
    assert one.drift(version, DAY).rows == 20

    store.is_reached = True
    write(other)  # again, although nothing was served since
    one._shared.poll()
    assert one.drift(version, DAY).rows == 25


def test_a_restart_continues_the_history_and_leaves_no_further_blobs(workers: Workers) -> None:
    version = version_of_numbers()
    for restart in range(1, 4):
        monitor = workers.new()
        assert monitor.drift(version, DAY).rows == 10 * (restart - 1)  # before it has written anything
        serve(monitor, version, np.full((10, 3), 20.0))
        assert monitor.drift(version, DAY).rows == 10 * restart
        write(monitor)
        assert monitor.drift(version, DAY).rows == 10 * restart
        workers.die(monitor)

    assert len(list((workers.folder / "monitoring" / "served").glob("*.msgpack"))) == 1


def test_a_worker_that_is_killed_loses_only_what_it_has_not_written(workers: Workers) -> None:
    killed, other, version = workers.new(), workers.new(), version_of_numbers()
    serve(killed, version, np.full((10, 3), 20.0))
    write(killed)
    serve(killed, version, np.full((5, 3), 20.0))
    workers.die(killed)

    assert other.drift(version, DAY).rows == 10


def test_blobs_that_cannot_be_read_are_ignored_and_logged_once(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    monitor, version = workers.new(), version_of_numbers()
    folder = workers.folder / "monitoring" / "served"
    folder.mkdir(parents=True)
    (folder / "foreign-0.msgpack").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    (folder / "notes.txt").write_text("not ours")
    serve(monitor, version, np.full((10, 3), 20.0))

    with caplog.at_level(logging.WARNING):
        assert [monitor.drift(version, DAY).rows for _ in range(3)] == [10] * 3

    assert [record.message for record in caplog.records] == ["served rows ignored"]


def test_a_folder_that_cannot_be_written_costs_only_the_sum(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    (workers.folder / "monitoring").write_text("not a folder")
    monitor, version = workers.new(), version_of_numbers()
    serve(monitor, version, np.full((10, 3), 20.0))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            serve(monitor, version, np.full((1, 3), 20.0))
            monitor._write()

    assert monitor.drift(version, DAY).rows == 13
    assert [record.message for record in caplog.records] == ["served rows not stored"]


def test_few_rows_have_figures_and_no_verdict(workers: Workers) -> None:
    monitor, version = workers.new(), version_of_numbers()
    nothing = monitor.drift(version, DAY)
    serve(monitor, version, np.full((99, 3), 60.0))
    few = monitor.drift(version, DAY)
    serve(monitor, version, np.full((1, 3), 60.0))
    enough = monitor.drift(version, DAY)

    assert (nothing.rows, nothing.columns, nothing.verdict) == (0, {}, "too few rows")
    assert nothing.extrapolated is None
    assert {"columns", "categories", "covariance_distance", "extrapolated", "verdict"} <= nothing.unavailable.keys()
    assert (few.rows, few.verdict, few.drifted) == (99, "too few rows", ())
    assert few.columns["x0"].rows == 99
    assert few.columns["x0"].standardised_mean_difference == pytest.approx((60 - 20) / 3, rel=0.1)
    assert few.extrapolated == 1.0
    assert "100 rows" in few.unavailable["verdict"]
    assert "vary" in few.unavailable["covariance_distance"]
    assert (enough.verdict, enough.drifted) == ("drifted", ("x0", "x1", "x2"))


def test_rows_like_the_training_rows_are_stable_and_a_lost_correlation_is_noticed(workers: Workers) -> None:
    random = np.random.default_rng(0)

    def rows(count: int) -> np.ndarray:
        first = random.normal(size=(count, 1))
        return np.hstack([first, first + random.normal(scale=0.1, size=(count, 1))])

    x = rows(2000)
    version = version_of(model_of(x, x[:, :1] + random.normal(size=(2000, 1))))
    like, broken = workers.new(), workers.new()
    serve(like, version, rows(500))
    serve(broken, version, random.normal(size=(500, 2)))

    assert like.drift(version, DAY).verdict == "stable"
    found = broken.drift(version, DAY)
    assert found.drifted == ("covariance",)
    assert found.covariance_distance is not None
    assert found.covariance_distance > 3


@pytest.mark.parametrize("gaps", [1800, 400])
def test_a_feature_that_is_missing_in_many_more_rows_than_in_training_has_drifted(workers: Workers, gaps: int) -> None:
    version = version_of_numbers(rows=400)
    version = replace(version, card=replace(version.card, gaps={"x0": 100}, dropped_rows=100))
    monitor, vanished, usual = workers.new(), workers.new(), workers.new()
    rows = np.random.default_rng(1).normal(20, 3, (2000, 3))
    serve(monitor, version, rows[gaps:])
    monitor.note_missing(version, {"x1": gaps, "x0": 2}, {})
    vanished.note_missing(version, {"x1": gaps}, {})
    serve(usual, version, rows[gaps:])
    usual.note_missing(version, {"x0": gaps // 4}, {"x2": 10})

    found = monitor.drift(version, DAY)
    assert (found.verdict, found.drifted) == ("drifted", ("x1",))
    assert found.missing["x1"] == MissingValues(gaps, 0, 0.0, gaps / 2000)
    assert found.missing["x0"] == MissingValues(2, 0, 0.2, 2 / 2000)
    nothing = vanished.drift(version, DAY)
    assert (nothing.verdict, nothing.drifted, nothing.rows) == ("drifted", ("x1",), 0)
    assert usual.drift(version, DAY).verdict == ("stable" if gaps == 400 else "drifted")


def test_few_rows_with_gaps_make_no_verdict(workers: Workers) -> None:
    monitor, version = workers.new(), version_of_numbers()
    monitor.note_missing(version, {"x1": 99}, {})

    assert monitor.drift(version, DAY).verdict == "too few rows"


def test_lognormal_rows_like_the_training_rows_are_stable_and_a_doubled_scale_is_named(workers: Workers) -> None:
    random = np.random.default_rng(3)
    prices = np.exp(random.normal(scale=1.5, size=(2600, 1)))
    x = np.hstack([prices, random.normal(size=(2600, 1))])
    version = version_of(model_of(x[:2000], x[:2000, :1] * 2 + random.normal(size=(2000, 1))))
    like, doubled = workers.new(), workers.new()
    serve(like, version, x[2000:2200])
    serve(doubled, version, x[2200:] * [1, 2])

    assert like.drift(version, DAY).verdict == "stable"
    found = doubled.drift(version, DAY)
    assert found.drifted == ("x1",)
    assert found.columns["x1"].variance_ratio == pytest.approx(4, rel=0.3)


def test_many_rows_are_sampled_and_both_numbers_are_kept(workers: Workers) -> None:
    monitor, version = workers.new(), version_of_numbers()
    serve(monitor, version, np.empty((0, 3)))
    serve(monitor, version, np.linspace(0, 1, 30_000).reshape(-1, 3))
    tap = monitor.tap(version)
    for _ in range(3000):
        tap.note([[0.5, 0.5, 0.5]], 1)
    assert len(tap._kept) == MAX_ROWS
    monitor.flush()

    found = monitor.drift(version, DAY)
    assert found.predicted_rows == 13_000
    assert found.rows == 2 * MAX_ROWS
    assert found.columns["x0"].served_mean == pytest.approx(0.5, abs=0.05)
    assert monitor.traffic("model").rows == 13_000


def test_a_long_sorted_table_that_resembles_the_training_rows_is_stable(workers: Workers) -> None:
    monitor, version = workers.new(), version_of_numbers(rows=2000)
    table = np.random.default_rng(5).normal(20, 3, (200_000, 3))
    table = table[np.argsort(table[:, 1])]

    for number, batch in enumerate(np.array_split(table, 40)):
        monitor.note(version, batch)
        if number in (3, 31):  # The table takes longer than the time between two flushes.
            monitor.flush()
    found = monitor.drift(version, DAY)

    assert (found.rows, found.predicted_rows) == (3 * MAX_ROWS, 200_000)
    assert found.columns["x1"].served_mean == pytest.approx(20, abs=0.3)
    assert found.verdict == "stable"


def test_rows_of_a_sample_count_as_the_rows_that_they_stand_for(workers: Workers) -> None:
    monitor, version = workers.new(), version_of_numbers()
    serve(monitor, version, np.full((9000, 3), 10.0))
    serve(monitor, version, np.full((1000, 3), 20.0))

    found = monitor.drift(version, DAY)

    assert found.columns["x0"].served_mean == pytest.approx(11)
    assert found.extrapolated == pytest.approx(0.9)


def test_a_prediction_of_many_columns_keeps_a_bounded_sample_and_only_means(workers: Workers) -> None:
    columns = MAX_PAIRED_COLUMNS + 150
    monitor, version = workers.new(), version_of_numbers(columns, rows=300)
    x = np.random.default_rng(0).normal(20, 3, (5000, columns))
    tap = monitor.tap(version)
    tap.note(x, len(x))
    assert sum(map(len, tap._kept)) == MIN_ROWS
    serve(monitor, version, x)
    assert not version.model.has_decomposed_design

    found = monitor.drift(version, DAY)
    assert found.rows == 2 * MIN_ROWS
    assert found.columns["x7"].served_mean == pytest.approx(20, abs=1)
    assert (found.covariance_distance, found.extrapolated) == (None, None)
    assert "100 columns" in found.unavailable["covariance_distance"]
    assert found.verdict == "stable"


def test_values_that_a_square_cannot_hold_are_counted_and_left_out_of_the_means(workers: Workers) -> None:
    monitor, version = workers.new(), version_of_numbers()
    x = np.full((200, 3), 20.0)
    x[7, 1] = 1e200
    serve(monitor, version, x)

    found = monitor.drift(version, DAY)
    assert (found.rows, found.predicted_rows) == (199, 200)
    assert found.columns["x1"].served_mean == pytest.approx(20)
    assert found.extrapolated == pytest.approx(1 / 200)


def test_the_frequencies_of_levels_are_compared_as_by_hand(workers: Workers) -> None:
    version, monitor = version_of_table(rows=400), workers.new()
    shares = {
        level: list(rows_of(FEATURES, 400)["species"]).count(level) / 400 for level in ("Adelie", "Chinstrap", "Gentoo")
    }
    rows = rows_of(FEATURES, 120, seed=3)
    rows["species"] = ["Adelie"] * 60 + ["Gentoo"] * 54 + ["Emperor"] * 6
    objects = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    query = PredictionQuery(objects, PredictionOptions(missing="null", unknown="null"))
    Predictor(version, monitor).predict(query)
    monitor.flush()

    found = monitor.drift(version, DAY)
    species = found.categories["species"]
    served = {"Adelie": 60 / 120, "Chinstrap": 0.0, "Gentoo": 54 / 120}
    assert {level: share.training for level, share in species.levels.items()} == pytest.approx(shares)
    assert {level: share.served for level, share in species.levels.items()} == pytest.approx(served)
    assert species.rows == 114
    assert species.unseen == pytest.approx(6 / 120)
    cells = [*((shares[level], served[level]) for level in shares), (0.0, 6 / 120)]
    floored = np.maximum(cells, 1e-4)
    by_hand = sum((found_ - expected) * np.log(found_ / expected) for expected, found_ in floored)
    assert species.psi == pytest.approx(by_hand)
    assert found.missing["species"].unseen == 6
    assert "species" in found.drifted
    assert "island" not in found.drifted


def test_the_share_of_gaps_is_compared_if_they_have_an_indicator(workers: Workers) -> None:
    features = tuple(replace(each, missing="indicator", fill=40.0) if each.name == "age" else each for each in FEATURES)
    version = version_of_table(replace(TABLE, features=features), rows=400)
    monitor = workers.new()
    rows = rows_of(FEATURES, 200, seed=3)
    rows["age"][:50] = [None] * 50
    objects = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    Predictor(version, monitor).predict(PredictionQuery(objects))
    monitor.flush()

    age = monitor.drift(version, DAY).categories["age"]
    assert age.levels["missing"].served == pytest.approx(0.25)
    assert age.levels["missing"].training == 0.0
    assert age.psi > 0.2


def test_terms_are_compared_as_columns_and_levels_within_them_are_explained(workers: Workers) -> None:
    terms = ["age", "age^2", "age:wild", "species"]
    version, monitor = version_of_table(terms=terms, rows=300), workers.new()
    rows = rows_of(FEATURES, 150, seed=9)
    objects = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    Predictor(version, monitor).predict(PredictionQuery(objects))
    monitor.flush()

    found = monitor.drift(version, DAY)
    design = version.encoder.design(version.encoder.read(objects, "", missing=False, unknown="refuse").codes)
    expected = expand(design, parse_terms(version.model.terms, version.model.features)).mean(axis=0)
    assert list(found.columns) == list(version.model.columns)
    assert [column.served_mean for column in found.columns.values()] == pytest.approx(expected.tolist())
    assert list(found.categories) == ["species"]
    assert "not a term" in found.unavailable["categories.island"]


def test_requests_are_counted_for_models_that_exist_only(workers: Workers) -> None:
    monitor = workers.new()
    for index in range(module.MAX_MODELS + 50):
        monitor.answered(f"<script>{index}</script>\n", failed=True)
    monitor.answered("crop-yield", failed=True)
    monitor.flush()
    monitor.answered("crop-yield", failed=True)
    monitor.answered("crop-yield", failed=False)
    monitor.flush()

    traffic = monitor.traffic("crop-yield")
    assert (traffic.requests, traffic.failed) in {(2, 1), (3, 2)}  # the first may be beyond the names of one flush
    assert sum(traffic.requests_by_minute) == traffic.requests
    assert traffic.requests_by_minute[-1] + traffic.requests_by_minute[-2] == traffic.requests
    assert list(workers.counted) == ["crop-yield"]
    assert monitor.models() == ["crop-yield"]


def test_a_model_that_was_trained_anew_under_the_same_number_starts_without_rows(workers: Workers) -> None:
    monitor = workers.new()
    before = version_of_numbers(created_at="2026-01-01T00:00:00.000Z")
    anew = version_of_numbers(created_at="2026-02-01T00:00:00.000Z")
    serve(monitor, before, np.full((10, 3), 20.0))

    assert monitor.drift(before, DAY).rows == 10
    assert monitor.drift(anew, DAY).rows == 0


def test_blobs_are_removed_when_their_buckets_have_aged_out(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor, version = workers.new(), version_of_numbers()
    serve(monitor, version, np.full((10, 3), 20.0))
    write(monitor)
    workers.die(monitor)
    other = SharedHistories(workers.folder / "monitoring", None)
    folder = workers.folder / "monitoring" / "served"

    other.sweep()
    assert len(list(folder.glob("*.msgpack"))) == 1
    monkeypatch.setattr("app.monitoring.shared_histories.KEPT", timedelta(0))
    other.sweep()
    assert not list(folder.glob("*.msgpack"))


def test_predictions_in_many_threads_lose_no_count_while_others_read(workers: Workers) -> None:
    monitor, version = workers.new(), version_of_numbers()
    rows = np.full((2, 3), 20.0)
    stop = threading.Event()
    counts = [0] * 4

    def predict(place: int) -> None:
        while not stop.is_set():
            monitor.note(version, rows)
            counts[place] += 2

    tap = monitor.tap(version)
    threads = [threading.Thread(target=predict, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        for _ in range(100):
            tap.note([[20.0, 20.0, 20.0]], 1)
            counts[3] += 1
        monitor.drift(version, DAY)
    wait_for(lambda: all(counts))
    stop.set()
    for thread in threads:
        thread.join()

    found = monitor.drift(version, DAY)
    assert found.predicted_rows == sum(counts)
    assert 0 < found.rows <= found.predicted_rows
