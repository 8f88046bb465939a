"""How the summary of fragments scales with the processes of this machine.

The same Parquet file is summarised by 1, 2, 4 and 8 processes. The efficiency of a core is the time of one process,
divided by the time of n and by the cores that they have. The shares are of processor time, which other work on the
machine hardly changes: reading and summarising in the processes, and merging and scheduling in this one. Scheduling is
everything else: packing tasks, waiting for results and unpacking them.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import NamedTuple

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
    """A tree that adds up the processor time of merging."""

    seconds = 0.0

    def add(self, index: int, statistics: Statistics) -> None:
        started = time.process_time()
        super().add(index, statistics)
        TimedTree.seconds += time.process_time() - started


class Counted(Processes):
    """Processes that count the bytes of results."""

    received = 0

    def run(self, tasks: Iterable[FragmentTask], poll: Callable[[], None]) -> Generator[tuple[int, bytes], None, None]:
        for index, content in super().run(tasks, poll):
            self.received += len(content)
            yield index, content

    def cpu_seconds(self) -> float:
        """Return the processor time of the processes, all of which are idle now."""
        ticks = 0
        for child in self._idle:
            fields = Path(f"/proc/{child.process_id}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


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


class Measured(NamedTuple):
    """A pass over all fragments."""

    seconds: float
    working: float  # seconds of processor time in the processes
    merging: float  # the same for merging
    scheduling: float
    received: int  # bytes of all results


def measure(file: LocalFile, workers: int) -> Measured:
    processes = Counted(workers)
    rows = rows_of(file, processes)
    plan = SummaryPlan(NAMES)
    rows.summarise(plan, lambda _: None)  # starts the processes
    passes = []
    for _ in range(2):
        TimedTree.seconds, processes.received = 0.0, 0
        working, own, started = processes.cpu_seconds(), time.process_time(), time.perf_counter()
        rows.summarise(plan, lambda _: None)
        seconds, own = time.perf_counter() - started, time.process_time() - own
        working = processes.cpu_seconds() - working
        passes.append(Measured(seconds, working, TimedTree.seconds, own - TimedTree.seconds, processes.received))
    processes.end_job()
    return min(passes)


def main() -> int:
    setattr(fragmented, "MergeTree", TimedTree)  # noqa: B010 - mypy would refuse the assignment
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fragments = ROWS // FRAGMENT_ROWS
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder))
        size = f"{fragments} fragments, {file.size / 1e6:.0f} MB"
        sys.stdout.write(f"{ROWS:,} rows of {FEATURES} features in {size}, {cores} cores\n")
        alone = 0.0
        for workers in WORKERS:
            found = measure(file, workers)
            alone = alone or found.seconds
            efficiency = alone / found.seconds / min(workers, cores)
            total = found.working + found.merging + found.scheduling
            sys.stdout.write(
                f"{workers} processes: {found.seconds:.2f} s, efficiency of a core {efficiency:.0%}; processor time "
                f"{total:.2f} s ({1e6 * found.working / ROWS:.2f} us a row), of it merging {found.merging / total:.2%} "
                f"({1e3 * found.merging / (fragments - 1):.2f} ms a merge) and scheduling "
                f"{found.scheduling / total:.2%} ({1e3 * found.scheduling / fragments:.2f} ms a fragment); "
                f"{found.received / fragments / 1e3:.0f} kB a result\n"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
