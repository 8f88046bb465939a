"""Fragments as tasks of a Ray that runs on this machine."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fragment_rows import rows_of, write_damaged, write_rows
from service import wait_for

from app.errors import InvalidInput
from app.regression.fit import fit_model
from app.regression.solvers import Exact
from app.training.fragments.ray_cluster import RayCluster
from app.training.progress import JobCancelled

ROWS = 1_500_000  # A task takes about 0.1 s.

# Ray ends with an error if its processes do not start within 15 s. The filter is for its own use of its dependencies.
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.parquet", ROWS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    pytest.importorskip("ray")
    cluster = RayCluster("local", 2)
    yield cluster
    cluster.close()


def workers() -> list[int]:
    """Return the processes of Ray that run a task."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name = (entry / "cmdline").read_bytes()
            if name.startswith(b"ray::answer") and _descends(int(entry.name), os.getpid()):
                found.append(int(entry.name))
        except OSError:  # it has ended
            continue
    return found


def _descends(process: int, ancestor: int) -> bool:
    while process > 1:
        if process == ancestor:
            return True
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def test_a_lost_worker_costs_only_its_fragments_and_a_cancelled_job_ends_its_tasks(
    path: Path, cluster: RayCluster, tmp_path: Path
) -> None:
    rows, killed = rows_of(path, cluster), list[int]()

    def kill_one() -> None:
        while not killed:
            for process in workers()[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    rows.files.split(rows.schema.dialect, (), lambda: None)
    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    result = fit_model(rows, Exact(), reread=False)
    assert killed
    assert result.statistics.rows == ROWS
    assert result.model.coef[0].tolist() == pytest.approx([2.0, -1.0], rel=1e-12)

    # A pipe in place of a file keeps a task waiting for ever.
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    waiting = rows_of(pipe, cluster, format_name="csv")

    def cancel(_rows: int) -> None:
        if workers():
            raise JobCancelled

    with pytest.raises(JobCancelled):
        waiting.summarise(None, cancel)  # type: ignore[arg-type]
    wait_for(lambda: not workers())

    damaged = write_damaged(tmp_path / "part-7.parquet", path)
    with pytest.raises(InvalidInput, match=r"^part-7\.parquet: Row group 3 is not readable as Parquet"):
        fit_model(rows_of(damaged, cluster, damaged.name), Exact())
