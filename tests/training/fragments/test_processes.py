"""Fragments in processes of this machine: killed ones, cancelled ones, and faults of the rows."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fragment_rows import PARTS, ROWS, rows_of, write_damaged, write_rows

from app.errors import InvalidInput, TrainingFailed
from app.regression.fit import fit_model
from app.regression.solvers import Exact
from app.regression.solvers.base import FitObserver
from app.training.fragments.executors import ATTEMPTS
from app.training.fragments.processes import Processes, _Child
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


def test_a_fragment_whose_processes_are_always_killed_fails_the_job_and_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes, send = Processes(1), _Child.send

    def send_to_killed(child: _Child, content: bytes) -> None:
        os.kill(child.process_id, signal.SIGKILL)
        send(child, content)

    rows = rows_of(path, processes, "sales.parquet")
    rows.files.split(rows.schema.dialect, (), lambda: None)
    processes.end_job()
    monkeypatch.setattr(_Child, "send", send_to_killed)
    with pytest.raises(TrainingFailed, match=rf"rows 1 to {ROWS // PARTS} of sales.parquet was killed {ATTEMPTS}"):
        fit_model(rows, Exact())
    processes.end_job()


def test_a_cancelled_job_ends_its_processes_in_the_middle_of_their_fragments(path: Path) -> None:
    processes = Processes(2)
    rows = rows_of(path, processes)
    before = set(children())

    def cancel(_rows: int) -> None:
        if started := set(children()) - before:
            for child in started:
                os.kill(child, signal.SIGSTOP)  # so that it does not end by itself
            raise JobCancelled

    with pytest.raises(JobCancelled):
        rows.summarise(None, cancel)  # type: ignore[arg-type]
    assert set(children()) <= before
    processes.end_job()


def test_a_damaged_row_group_is_named_with_its_file(path: Path, processes: Processes, tmp_path: Path) -> None:
    damaged = write_damaged(tmp_path / "part-7.parquet", path)
    with pytest.raises(InvalidInput, match=r"^part-7.parquet: Row group 3 is not readable as Parquet"):
        fit_model(rows_of(damaged, processes, damaged.name), Exact())
