"""Fragments as tasks of a Ray that runs on this machine."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fragment_rows import PARTS, ROWS, rows_of, write_rows

from app.errors import InvalidInput
from app.regression.fit import fit_model
from app.regression.solvers import Exact
from app.training.fragments.ray_cluster import RayCluster
from app.training.progress import JobCancelled

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own use of its dependencies


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.parquet")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    pytest.importorskip("ray")
    cluster = RayCluster("local", 2)
    yield cluster
    cluster.close()


def workers(state: str) -> list[int]:
    """Return the processes of Ray that are IDLE, or that run a task with this function."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name = (entry / "cmdline").read_bytes()
            if name.startswith(f"ray::{state}".encode()) and _descends(int(entry.name), os.getpid()):
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

    def kill_one(_rows: int) -> None:
        if not killed and (found := workers("")):
            os.kill(found[0], signal.SIGKILL)
            killed.append(found[0])

    rows.files.split(rows.schema.dialect, (), lambda: None)
    rows.on_fragments = lambda done, _: kill_one(done)
    result = fit_model(rows, Exact())
    assert killed
    assert result.statistics.rows == ROWS
    assert result.model.coef[0].tolist() == pytest.approx([2.0, -1.0], rel=1e-12)

    # A pipe in place of a file keeps a task waiting for ever.
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    waiting = rows_of(pipe, cluster, format_name="csv")

    def cancel(_rows: int) -> None:
        if workers("answer"):
            raise JobCancelled

    with pytest.raises(JobCancelled):
        waiting.summarise(None, cancel)  # type: ignore[arg-type]
    cancelled = time.monotonic()
    while workers("answer"):
        assert time.monotonic() - cancelled < 2
        time.sleep(0.05)

    damaged = tmp_path / "part-7.parquet"
    damaged.write_bytes(path.read_bytes()[: 3 * path.stat().st_size // PARTS])
    with pytest.raises(InvalidInput, match=r"^part-7\.parquet: The file is not readable as Parquet"):
        fit_model(rows_of(damaged, cluster, damaged.name), Exact())
