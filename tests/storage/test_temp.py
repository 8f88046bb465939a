import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.errors import SpoolFull
from app.storage.temp import TempStorage

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from app.storage.temp import TempStorage
file = TempStorage(Path(sys.argv[1]), 1000).open()
file.write(bytes(900))
print(flush=True)
input()
"""


def test_a_file_is_counted_until_it_is_closed_or_nothing_refers_to_it(tmp_path: Path) -> None:
    storage = TempStorage(tmp_path / "scratch", 1000)
    first, second = storage.open(), storage.open(900)
    first.write(b"a" * 500)
    second.write(np.ones(50).data)
    assert second.path.stat().st_size == 400
    with pytest.raises(SpoolFull, match="space for temporary files is too small"):
        storage.open(101)
    first.close()
    storage.open(600).close()
    del second
    storage.open(1000).close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_file_is_opened_again_by_its_path_with_a_position_of_its_own(tmp_path: Path) -> None:
    with TempStorage(tmp_path, 1000).open() as file:
        file.writelines([b"a,b\n", b"1,2\n"])
        for _ in range(2):
            assert file.path.read_bytes() == b"a,b\n1,2\n"
        file.seek(0)
        assert file.read() == b"a,b\n1,2\n"


def test_files_of_other_workers_count_until_their_process_ends_however_it_ends(tmp_path: Path) -> None:
    storage = TempStorage(tmp_path, 1000)
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(SpoolFull, match="space for temporary files is too small"):
            storage.open(101)
        storage.open(100).close()
        other.send_signal(signal.SIGKILL)
    storage.open(1000).close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    storage = TempStorage(tmp_path / "scratch", 1000)
    first = storage.open()
    for path in (tmp_path / "scratch").iterdir():
        path.unlink()
    (tmp_path / "scratch").rmdir()
    second = storage.open(500)
    second.write(bytes(500))
    first.close()
    assert second.path.stat().st_size == 500
    second.close()
