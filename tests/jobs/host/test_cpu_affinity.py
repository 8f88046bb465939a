"""During predictions, a training leaves half of the cores to them."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from service import wait_for

from app.jobs.host import cpu_affinity
from app.jobs.host.cpu_affinity import PredictionActivity, yield_cores_to_predictions

needs_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores, on Linux"
)
QUIET_SECONDS = 3600.0


@pytest.fixture(autouse=True)
def quiet_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a prediction recent for so long that no test depends on its own speed."""
    monkeypatch.setattr(cpu_affinity, "QUIET_SECONDS", QUIET_SECONDS)


def test_a_prediction_is_recent_for_a_moment(tmp_path: Path) -> None:
    traffic = PredictionActivity(tmp_path / "traffic")
    assert not traffic.is_recent()
    traffic.note()
    assert traffic.is_recent()
    long_ago = time.time() - 2 * QUIET_SECONDS
    os.utime(tmp_path / "traffic", (long_ago, long_ago))
    assert not traffic.is_recent()
    traffic.note()
    assert traffic.is_recent()


def test_an_unwritable_state_folder_is_not_an_error(tmp_path: Path) -> None:
    traffic = PredictionActivity(tmp_path / "missing" / "traffic")
    traffic.note()
    assert not traffic.is_recent()


@needs_cores
def test_all_threads_leave_half_of_the_cores_to_predictions_until_these_stop(tmp_path: Path) -> None:
    traffic = PredictionActivity(tmp_path / "traffic")
    cores = os.sched_getaffinity(0)
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        with yield_cores_to_predictions(traffic):
            traffic.note()
            wait_for(lambda: len(os.sched_getaffinity(other.native_id or 0)) == (len(cores) + 1) // 2)
            wait_for(lambda: os.sched_getaffinity(0) == os.sched_getaffinity(other.native_id or 0) < cores)
            long_ago = time.time() - 2 * QUIET_SECONDS
            os.utime(tmp_path / "traffic", (long_ago, long_ago))
            wait_for(lambda: os.sched_getaffinity(0) == cores)
            traffic.note()
            wait_for(lambda: os.sched_getaffinity(0) < cores)
        assert os.sched_getaffinity(0) == os.sched_getaffinity(other.native_id or 0) == cores
    finally:
        done.set()
        other.join()


def test_a_single_core_is_shared(tmp_path: Path) -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("needs Linux")
    program = (
        "import os, pathlib, app.jobs.host.cpu_affinity as s; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        f"t = s.PredictionActivity(pathlib.Path({str(tmp_path / 'traffic')!r})); t.note()\n"
        "with s.yield_cores_to_predictions(t): print(len(os.sched_getaffinity(0)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
