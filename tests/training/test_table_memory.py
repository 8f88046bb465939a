"""The peak memory of training from a table with categories does not grow with the number of rows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from service import ROOT

TRAIN = """
import sys
from pathlib import Path
from laboratory import Laboratory
version = Laboratory(Path(sys.argv[2])).train(Path(sys.argv[1]), "csv")
assert version.card.rows == int(sys.argv[3])
print(int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]))
"""
MAX_RATIO = 1.1


def write_table(path: Path, rows: int) -> None:
    """Write a CSV with five categories of 3 to 48 levels."""
    random = np.random.default_rng(0)
    with pyarrow.csv.CSVWriter(
        path, pa.schema([(name, pa.string()) for name in "abcde"] + [("y", pa.float64())])
    ) as csv:
        for _ in range(0, rows, 100_000):
            words = [
                pa.array([f"level {n}" for n in range(3 * 2**power)]).take(
                    pa.array(random.integers(3 * 2**power, size=100_000))
                )
                for power in range(5)
            ]
            csv.write(pa.record_batch([*words, pa.array(random.normal(size=100_000))], names=[*"abcde", "y"]))


def peak_of(path: Path, rows: int) -> int:
    """Return the peak memory of a training in a process of its own, in KiB."""
    command = [sys.executable, "-c", TRAIN, str(path), str(path.with_suffix("")), str(rows)]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
def test_ten_times_as_many_rows_with_five_categories_take_at_most_a_tenth_more_memory(tmp_path: Path) -> None:
    peaks = []
    for rows in (100_000, 1_000_000):
        path = tmp_path / f"rows-{rows}.csv"
        write_table(path, rows)
        peaks.append(peak_of(path, rows))
    assert peaks[1] <= MAX_RATIO * peaks[0], peaks
