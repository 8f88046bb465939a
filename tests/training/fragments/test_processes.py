"""Fragments in processes of this machine: killed ones, cancelled ones, and faults of the rows."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fragment_rows import PARTS, ROWS, rows_of, write_damaged, write_rows

from app.errors import InvalidInput, TrainingFailed
from app.regression.fit import fit_model
from app.regression.solvers import Exact
from app.regression.solvers.base import FitObserver
from app.training.fragments.executors import ATTEMPTS
from app.training.fragments.processes import Processes
from app.training.progress import JobCancelled


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.parquet")


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    processes = Processes(2)
    yield processes
    processes.end_job()


class Counting(FitObserver):
    rows = 0

    def rows_read(self, rows: int) -> None:
        self.rows = rows


def children() -> list[int]:
    """Return the processes that read fragments for this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"app.training.fragments.child" in command and str(os.getpid()).encode() in command:
            found.append(int(entry.name))
    return found


def test_a_killed_process_costs_only_the_fragment_that_it_was_reading(path: Path, processes: Processes) -> None:
    rows, done = rows_of(path, processes), list[tuple[int, int]]()

    def kill_one(count: int, total: int) -> None:
        if count == 1:
            os.kill(children()[0], signal.SIGKILL)
        done.append((count, total))

    rows.on_fragments = kill_one
    observer = Counting()
    result = fit_model(rows, Exact(), observer=observer, reread=False)

    assert result.statistics.rows == ROWS
    assert observer.rows == ROWS
    assert done == [(count, PARTS) for count in range(PARTS + 1)]
    assert result.model.coef[0].tolist() == pytest.approx([2.0, -1.0], rel=1e-12)


def test_a_fragment_whose_processes_are_always_killed_fails_the_job_and_is_named(path: Path) -> None:
    processes, stop = Processes(1), threading.Event()

    def kill() -> None:
        while not stop.wait(0.01):
            for child in children():
                os.kill(child, signal.SIGKILL)

    rows = rows_of(path, processes, "sales.parquet")
    rows.files.split(rows.schema.dialect, (), lambda: None)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(TrainingFailed, match=rf"rows 1 to {ROWS // PARTS} of sales.parquet was killed {ATTEMPTS}"):
            fit_model(rows, Exact())
    finally:
        stop.set()
        killer.join()
        processes.end_job()


def test_a_cancelled_job_ends_its_processes(path: Path) -> None:
    processes = Processes(2)
    rows = rows_of(path, processes)

    def cancel(_rows: int) -> None:
        if children():
            raise JobCancelled

    before = set(children())
    started = time.monotonic()
    with pytest.raises(JobCancelled):
        rows.summarise(None, cancel)  # type: ignore[arg-type]
    assert time.monotonic() - started < 2
    assert set(children()) <= before
    processes.end_job()


def test_a_damaged_row_group_is_named_with_its_file(path: Path, processes: Processes, tmp_path: Path) -> None:
    damaged = write_damaged(tmp_path / "part-7.parquet", path)
    with pytest.raises(InvalidInput, match=r"^part-7.parquet: Row group 3 is not readable as Parquet"):
        fit_model(rows_of(damaged, processes, damaged.name), Exact())
