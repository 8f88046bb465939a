import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.storage.file_lock import FileLock, identity

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from app.storage.file_lock import FileLock
FileLock(Path(sys.argv[1])).acquire()
print(flush=True)
input()
"""


@contextmanager
def holder_of(path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run another process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as other:
        assert other.stdout
        other.stdout.readline()
        yield other
        other.kill()


def test_one_process_at_a_time_holds_a_lock(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "state" / "lock")
    with holder_of(lock.path) as other:
        assert not lock.acquire(blocking=False)
        other.kill()
        assert lock.acquire()
    assert not FileLock(lock.path).acquire(blocking=False)
    lock.close()
    assert FileLock(lock.path).acquire(blocking=False)


def test_a_lock_whose_file_was_removed_is_not_current(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert identity(path) is None
    with FileLock(path) as lock:
        assert lock.is_current()
        path.unlink()
        assert not lock.is_current()
        path.touch()
        assert not lock.is_current()
        assert FileLock(path).acquire(blocking=False)


def test_a_process_that_waits_gets_the_lock_of_the_file_that_is_at_the_path_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder, waiting = FileLock(path), FileLock(path)
    holder.acquire()
    thread = threading.Thread(target=waiting.acquire)
    thread.start()
    path.unlink()
    path.touch()
    holder.close()
    thread.join()
    assert waiting.is_current()
    waiting.close()


def test_a_lock_that_is_not_to_be_created_needs_its_file(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock", os.O_RDWR)
    with pytest.raises(FileNotFoundError):
        lock.acquire()
    assert not lock.path.exists()
    lock.path.touch()
    assert lock.acquire(blocking=False)
    lock.close()


def test_a_folder_can_be_locked(tmp_path: Path) -> None:
    with FileLock(tmp_path, os.O_RDONLY):
        assert not FileLock(tmp_path, os.O_RDONLY).acquire(blocking=False)
