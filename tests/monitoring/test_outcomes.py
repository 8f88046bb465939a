"""Recorded predictions and their outcomes: the same contract for SQLite and for Postgres."""

import math
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from postgres import Postgres
from service import MAX_SECONDS, wait_for

from app.errors import Unavailable
from app.monitoring.outcomes import database, writer
from app.monitoring.outcomes import outcomes as module
from app.monitoring.outcomes.outcomes import Outcomes
from app.monitoring.outcomes.records import Matches, NotRecorded, OutcomeRows, RecordedRows

MEBIBYTE = 1 << 20
DAY = 86_400.0
TARGETS = ("apples", "oranges")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may exceed the time limits."""
    monkeypatch.setattr(writer, "WAIT_SECONDS", MAX_SECONDS)
    monkeypatch.setattr(database, "SECONDS", round(MAX_SECONDS))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state' / 'outcomes.sqlite'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def outcomes(url: str) -> Iterator[Outcomes]:
    with closing(Outcomes(url, days=30, max_bytes=64 * MEBIBYTE)) as opened:
        yield opened


def made(
    ids: Sequence[str],
    predictions: Sequence[Sequence[float]],
    *,
    version: int = 1,
    half_width: float | None = 1.0,
    age: float = 0.0,
) -> RecordedRows:
    values = np.array(predictions, dtype=np.float64)
    intervals = None if half_width is None else np.stack([values - half_width, values + half_width], axis=2)
    return RecordedRows("crop", version, TARGETS, ids, values, intervals, time.time() - age)


def constant(ids: Sequence[str], value: float, **options: float) -> RecordedRows:
    return made(ids, [[value, value]] * len(ids), **options)  # type: ignore[arg-type]


def match(outcomes: Outcomes, rows: dict[str, Sequence[float]], *, replace: bool = False) -> Matches:
    matches = Matches()
    given = OutcomeRows(list(rows), TARGETS, np.array(list(rows.values()), dtype=np.float64))
    outcomes.match("crop", given, matches, replace=replace)
    return matches


def test_before_anything_is_recorded_there_is_nothing_and_no_file(outcomes: Outcomes, tmp_path: Path) -> None:
    assert outcomes.rolling("crop", DAY) == {}
    assert match(outcomes, {"a": (1, 2)}).unknown_ids == ["a"]
    assert outcomes.usage().recorded == 0
    assert not (tmp_path / "state").exists()


def test_rolling_errors_are_those_of_the_predictions_made_at_the_time(outcomes: Outcomes) -> None:
    rng = np.random.default_rng(7)
    predictions, actual = rng.normal(size=(1200, 2)), rng.normal(size=(1200, 2))
    actual[rng.random(actual.shape) < 0.3] = np.nan
    ids = [f"id {number}" for number in range(1200)]
    for version, rows in ((3, slice(0, 700)), (4, slice(700, 1200))):
        outcomes.record(made(ids[rows], predictions[rows].tolist(), version=version, half_width=0.8))

    order = rng.permutation(1200)
    matches = match(outcomes, {ids[row]: actual[row].tolist() for row in order})

    for version, rows in ((3, slice(0, 700)), (4, slice(700, 1200))):
        known = ~np.isnan(actual[rows])
        rolling = outcomes.rolling("crop", DAY)[version]
        assert (rolling.recorded, rolling.matched) == (len(known), known.any(axis=1).sum())
        assert rolling.waiting == len(known) - rolling.matched
        assert matches.versions[version] == rolling.matched
        for place, target in enumerate(TARGETS):
            error = (predictions[rows] - actual[rows])[known[:, place], place]
            shown = rolling.targets[target]
            assert (shown["rows"], shown["interval_rows"]) == (len(error), len(error))
            assert shown["rmse"] == pytest.approx(math.sqrt(np.mean(error**2)), rel=1e-12)
            assert shown["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-12)
            assert shown["bias"] == pytest.approx(np.mean(error), rel=1e-12)
            assert shown["interval_coverage"] == np.mean(np.abs(error) <= 0.8)
    assert matches.without_values == np.isnan(actual).all(axis=1).sum()


def test_the_first_recording_of_an_id_stays_and_so_does_the_first_outcome(outcomes: Outcomes) -> None:
    outcomes.record(constant(["a"], 5.0, version=1))
    with pytest.raises(NotRecorded, match="1 of 2 ids is recorded already with other predictions, which stay"):
        outcomes.record(constant(["a", "b"], 9.0, version=2))
    with pytest.raises(NotRecorded, match="The id is recorded already with another prediction, which stays"):
        outcomes.record(constant(["a"], 5.0, version=2))
    outcomes.record(constant(["a"], 5.0, version=1))  # A request that was repeated.
    outcomes.record(constant(["b"], 9.0, version=2))

    first = match(outcomes, {"a": (4.5, math.nan)})
    assert (first.matched, dict(first.versions)) == (1, {1: 1})
    assert match(outcomes, {"a": (4.5, math.nan)}).repeated == 1
    later = match(outcomes, {"a": (7.0, 5.0)})
    assert (later.matched, later.different, later.different_ids) == (1, 1, ["a"])
    assert outcomes.rolling("crop", DAY)[1].targets["apples"]["bias"] == 0.5
    assert outcomes.rolling("crop", DAY)[1].targets["oranges"]["bias"] == 0.0

    replaced = match(outcomes, {"a": (7.0, 5.0)}, replace=True)
    assert (replaced.replaced, replaced.matched, replaced.different) == (1, 0, 0)
    shown = outcomes.rolling("crop", DAY)[1]
    assert (shown.matched, shown.targets["apples"]["rows"], shown.targets["apples"]["bias"]) == (1, 1, -2.0)
    assert shown.targets["apples"]["interval_coverage"] == 0.0
    assert (outcomes.rolling("crop", DAY)[2].recorded, outcomes.rolling("crop", DAY)[2].matched) == (1, 0)


def test_predictions_without_an_interval_or_a_value_have_no_coverage_or_error(outcomes: Outcomes) -> None:
    outcomes.record(made(["a"], [[1.0, math.nan]], half_width=None))

    assert match(outcomes, {"a": (3.0, 4.0)}).matched == 1

    targets = outcomes.rolling("crop", DAY)[1].targets
    assert targets["apples"]["interval_coverage"] is None
    assert targets["apples"]["bias"] == -2.0
    assert targets.get("oranges", {"rows": 0})["rows"] == 0


def test_errors_too_large_to_be_added_up_are_withheld(outcomes: Outcomes) -> None:
    outcomes.record(constant(["a"], 1e300))
    match(outcomes, {"a": (-1e300, 1e300)})

    targets = outcomes.rolling("crop", DAY)[1].targets
    assert (targets["apples"]["rmse"], targets["apples"]["mae"], targets["apples"]["bias"]) == (None, None, None)
    assert targets["oranges"]["rmse"] == 0.0


@pytest.mark.parametrize("typo", [1e9, 1e12, 1e155])
def test_a_large_outcome_that_is_replaced_leaves_the_other_errors_as_they_were(outcomes: Outcomes, typo: float) -> None:
    outcomes.record(constant(["a", "b", "c", "d"], 5.0))
    match(outcomes, {"a": (4.5, 4.5), "b": (typo, 7.0), "d": (5.0, 5.0)})
    match(outcomes, {"c": (typo * 1.1, 5.25), "b": (7.0, 7.0)}, replace=True)
    match(outcomes, {"c": (5.25, typo)}, replace=True)
    match(outcomes, {"c": (5.25, 5.25)}, replace=True)

    for target in TARGETS:
        shown = outcomes.rolling("crop", DAY)[1].targets[target]
        assert (shown["rows"], shown["interval_rows"], shown["interval_coverage"]) == (4, 4, 0.75)
        assert shown["rmse"] == pytest.approx(math.sqrt((0.25 + 4 + 0.0625) / 4), rel=1e-12)
        assert shown["mae"] == pytest.approx((0.5 + 2 + 0.25) / 4, rel=1e-12)
        assert shown["bias"] == pytest.approx((0.5 - 2 - 0.25) / 4, rel=1e-12)


def test_several_processes_create_the_tables_at_once_and_lose_nothing(url: str) -> None:
    starting = threading.Barrier(4)

    def record(worker: int) -> None:
        with closing(Outcomes(url, days=30, max_bytes=64 * MEBIBYTE)) as own, ThreadPoolExecutor(4) as requests:
            starting.wait(MAX_SECONDS)
            # Half of the ids are also those of other workers.
            each = [constant([f"{worker}-{number}", f"shared-{number}"], 5.0) for number in range(40)]
            list(requests.map(own.record, each))

    with ThreadPoolExecutor(4) as workers:
        list(workers.map(record, range(4)))

    with closing(Outcomes(url, days=30, max_bytes=64 * MEBIBYTE)) as opened:
        assert opened.rolling("crop", DAY)[1].recorded == 4 * 40 + 40
        ids = [f"{worker}-{number}" for worker in range(4) for number in range(40)]
        assert match(opened, dict.fromkeys(ids, (1.0, 1.0))).matched == 160


def test_concurrent_outcomes_of_the_same_predictions_are_counted_once(url: str) -> None:
    ids = [f"id {number}" for number in range(300)]
    with closing(Outcomes(url, days=30, max_bytes=64 * MEBIBYTE)) as opened:
        opened.record(constant(ids, 5.0))

        def send(order: int) -> Matches:
            with closing(Outcomes(url, days=30, max_bytes=64 * MEBIBYTE)) as own:
                return match(own, dict.fromkeys(ids[::order], (4.0, 4.0)))

        with ThreadPoolExecutor(2) as clients:
            matches = list(clients.map(send, (1, -1)))

        assert sum(each.matched for each in matches) == 300
        assert sum(each.repeated for each in matches) == 300
        assert opened.rolling("crop", DAY)[1].targets["apples"]["rows"] == 300


def test_the_oldest_records_make_room_and_their_number_is_known(url: str, tmp_path: Path) -> None:
    most, rows = MEBIBYTE, 14_000 if url.startswith("sqlite") else 6000
    with closing(Outcomes(url, days=30, max_bytes=most)) as opened:
        for start in range(0, rows, 1000):
            opened.record(constant([f"order-{number:05}" for number in range(start, start + 1000)], 1.0))
            assert opened.usage().bytes <= most or url.startswith("postgres")
        usage = opened.usage()

        assert usage.recorded == rows
        assert 0 < usage.removed < rows
        assert usage.waiting == rows - usage.removed
        assert match(opened, {f"order-{usage.removed - 1:05}": (1, 1)}).unknown == 1
        assert match(opened, {f"order-{usage.removed:05}": (1, 1), f"order-{rows - 1:05}": (1, 1)}).matched == 2
    if url.startswith("sqlite"):
        assert usage.bytes > 0.6 * most  # The space is used.
        assert (tmp_path / "state" / "outcomes.sqlite").stat().st_size <= most
        with closing(Outcomes(url, days=30, max_bytes=most // 4)) as lowered:
            lowered._clean()
            assert (tmp_path / "state" / "outcomes.sqlite").stat().st_size <= most // 4
            assert match(lowered, {f"order-{rows - 2:05}": (1, 1)}).matched == 1


def test_a_request_that_exceeds_the_limit_alone_is_not_recorded(outcomes: Outcomes, url: str) -> None:
    with closing(Outcomes(url, days=30, max_bytes=MEBIBYTE)) as small:
        with pytest.raises(NotRecorded, match="would exceed LINSERVE_MAX_ACTUALS_BYTES"):
            small.record(constant([f"{number}" for number in range(10_000)], 1.0))
        small.record(constant(["a"], 1.0))
        assert small.usage().recorded == 1


def test_records_expire_after_the_days(outcomes: Outcomes) -> None:
    outcomes.record(constant(["old", "older"], 1.0, age=31 * DAY))
    outcomes.record(constant(["young"], 1.0, age=29 * DAY))

    assert match(outcomes, {"old": (1, 1), "young": (1, 1)}).unknown_ids == ["old"]
    outcomes.record(constant(["older"], 2.0, version=7))  # A new prediction under the id of one that has expired.
    assert match(outcomes, {"older": (1, 1)}).versions == {7: 1}
    outcomes.forget("crop", 7)
    outcomes._clean()

    assert (outcomes.usage().recorded, outcomes.usage().matched) == (1, 1)
    assert outcomes.rolling("crop", 100 * DAY)[1].matched == 1
    assert outcomes.rolling("crop", 28 * DAY) == {}


def test_a_damaged_file_is_named_as_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.sqlite"
    file.write_bytes(b"no database" * 1000)
    with closing(Outcomes(f"sqlite:///{file}", days=30, max_bytes=MEBIBYTE)) as opened:
        with pytest.raises(NotRecorded, match="its file is damaged"):
            opened.record(constant(["a"], 1.0))
        with pytest.raises(Unavailable, match="cannot be used: its file is damaged"):
            opened.rolling("crop", DAY)


def test_records_of_a_deleted_model_match_no_later_model_of_its_name(outcomes: Outcomes) -> None:
    outcomes.record(constant(["a", "b"], 1.0, version=2))
    outcomes.forget("crop", 2, others=True)
    assert match(outcomes, {"a": (1, 1)}).unknown == 1
    assert outcomes.rolling("crop", DAY) == {}
    assert outcomes.models() == []
    outcomes.record(constant(["a"], 1.0, version=2))  # The deletion failed, so the model is still there.
    outcomes.forget("crop", 2, others=True, deleted=True)

    with pytest.raises(NotRecorded, match="was deleted"):
        outcomes.record(constant(["late"], 1.0, version=2))
    outcomes.record(constant(["a"], 9.0, version=3))
    assert dict(match(outcomes, {"a": (9, 9), "late": (1, 1)}).versions) == {3: 1}


def test_records_of_a_deleted_version_are_removed_and_others_stay(outcomes: Outcomes) -> None:
    outcomes.record(constant(["a"], 1.0, version=1))
    outcomes.record(constant(["b"], 1.0, version=2))

    outcomes.forget("crop", 1)

    assert list(outcomes.rolling("crop", DAY)) == [2]
    assert (match(outcomes, {"a": (1, 1), "b": (1, 1)}).unknown_ids) == ["a"]


def test_a_file_that_was_removed_is_created_again(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.sqlite"
    with closing(Outcomes(f"sqlite:///{file}", days=30, max_bytes=MEBIBYTE)) as opened:
        opened.record(constant(["a"], 1.0))
        for part in tmp_path.glob("outcomes.sqlite*"):
            part.unlink()
        opened.record(constant(["b"], 1.0))

        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("SELECT prediction_id FROM linserve_predictions").fetchall() == [("b",)]


def test_without_its_server_nothing_is_said_to_be_recorded_and_later_it_is(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", MAX_SECONDS)  # Otherwise, a slow failure delays the next record.
    with closing(Outcomes(postgres.new_database(), days=30, max_bytes=MEBIBYTE)) as opened:
        opened.record(constant(["a"], 1.0))
        postgres.stop()
        try:
            with pytest.raises(NotRecorded, match="does not answer"):
                opened.record(constant(["b"], 1.0))
            with pytest.raises(Unavailable):
                opened.rolling("crop", DAY)
        finally:
            postgres.start()
        opened.record(constant(["c"], 1.0))
        assert match(opened, {"a": (1, 1), "b": (1, 1), "c": (1, 1)}).unknown_ids == ["b"]


def test_a_server_that_does_not_answer_delays_one_prediction_and_not_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", MAX_SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
        with closing(Outcomes(url, days=30, max_bytes=MEBIBYTE)) as opened:
            with pytest.raises(NotRecorded, match="does not answer"):
                opened.record(constant(["a"], 1.0))
            silent.accept()[0].close()
            silent.setblocking(False)
            with pytest.raises(NotRecorded, match="tries again in a few seconds"):
                opened.record(constant(["b"], 1.0))
            with pytest.raises(BlockingIOError):  # no further connection was attempted
                silent.accept()


def test_old_records_are_removed_also_while_predictions_never_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CLEAN_SECONDS", 0.01)
    cleaned: list[int] = []

    def clean() -> bool:
        cleaned.append(1)
        return False

    with closing(writer.Writer(lambda group: [None] * len(group), clean)) as busy:

        def is_cleaned_after_one_more() -> bool:
            busy.record(constant(["a"], 1.0))
            return len(cleaned) > 2

        wait_for(is_cleaned_after_one_more)
