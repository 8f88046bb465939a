"""How the summary of fragments scales with the processes of this machine.

The same Parquet files are summarised by 1, 2, 4 and 8 processes. The efficiency of n processes is the time of one,
divided by the time of n and by the cores that they have. The time to read and summarise is measured in the processes,
that of merging in this one; the rest is scheduling: packing tasks, waiting for results and unpacking them.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from app.data.columns.schema import TableSchema
from app.regression.solvers import Exact
from app.regression.summary_plan import SummaryPlan
from app.training.fragments import rows as fragmented
from app.training.fragments.executors import FragmentTask
from app.training.fragments.files import FragmentedFiles
from app.training.fragments.merge import MergeTree, Statistics
from app.training.fragments.processes import Processes
from app.training.fragments.rows import FragmentedRows
from app.training.fragments.split import LocalFile
from app.training.request import TrainingRequest

FEATURES = 100
ROWS = 160_000
FRAGMENT_ROWS = 10_000
WORKERS = (1, 2, 4, 8)
NAMES = tuple(f"x{number}" for number in range(FEATURES))


def write(folder: Path) -> LocalFile:
    random = np.random.default_rng(0)
    columns = {name: random.normal(size=ROWS) for name in NAMES}
    columns["y"] = sum(columns.values()) + random.normal(size=ROWS)
    path = folder / "rows.parquet"
    pa.parquet.write_table(pa.table(columns), path, row_group_size=FRAGMENT_ROWS, compression="none")
    return LocalFile(str(path))


class TimedTree(MergeTree):
    """A tree that adds up the time of merging."""

    seconds = 0.0

    def add(self, index: int, statistics: Statistics) -> None:
        started = time.perf_counter()
        super().add(index, statistics)
        TimedTree.seconds += time.perf_counter() - started


class Counted(Processes):
    """Processes that count the bytes of results."""

    received = 0

    def run(self, tasks: Iterable[FragmentTask], poll: Callable[[], None]) -> Generator[tuple[int, bytes], None, None]:
        for index, content in super().run(tasks, poll):
            self.received += len(content)
            yield index, content


def rows_of(file: LocalFile, processes: Processes) -> FragmentedRows:
    request = TrainingRequest(
        model="m",
        upload="u",
        format="parquet",
        features=NAMES,
        targets=("y",),
        solver=Exact(),
        promote="never",
        fingerprint="",
        weight_kind="precision",
    )
    files = FragmentedFiles([file], "parquet", processes, size=1)
    return FragmentedRows(files, request, TableSchema.of_numbers(NAMES, ("y",)))


def measure(file: LocalFile, workers: int) -> tuple[float, float, int]:
    """Return the seconds of a pass, those of merging, and the bytes of all results."""
    processes = Counted(workers)
    rows = rows_of(file, processes)
    plan = SummaryPlan(NAMES)
    rows.summarise(plan, lambda _: None)  # starts the processes
    times = []
    for _ in range(2):
        TimedTree.seconds, processes.received = 0.0, 0
        started = time.perf_counter()
        rows.summarise(plan, lambda _: None)
        times.append((time.perf_counter() - started, TimedTree.seconds))
    processes.end_job()
    return *min(times), processes.received


def main() -> int:
    setattr(fragmented, "MergeTree", TimedTree)  # noqa: B010 - mypy would refuse the assignment
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fragments = ROWS // FRAGMENT_ROWS
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder))
        sys.stdout.write(
            f"{ROWS:,} rows of {FEATURES} features in {fragments} fragments, {file.size / 1e6:.0f} MB, {cores} cores\n"
        )
        alone = 0.0
        for workers in WORKERS:
            seconds, merging, received = measure(file, workers)
            alone = alone or seconds
            efficiency = alone / seconds / min(workers, cores)
            sys.stdout.write(
                f"{workers} processes: {seconds:.2f} s, {ROWS / seconds:,.0f} rows/s, efficiency of a core "
                f"{efficiency:.0%}, merging {merging / seconds:.1%} "
                f"({1e3 * merging / (fragments - 1):.1f} ms a merge), "
                f"{received / fragments / 1e3:.0f} kB a result\n"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
