"""A replica removes what its killed requests left, unless a trainer of its state folder does."""

import contextlib
import os
import time
from pathlib import Path

import pytest
from service import wait_for

from app.storage.file_lock import FileLock
from app.storage.folder_store import FolderStore
from app.training.uploads import ORPHAN_SECONDS, UploadStore
from app.web.spool_sweeper import SpoolSweeper


@pytest.fixture
def uploads(tmp_path: Path) -> UploadStore:
    """A spool with an old upload that its request left, and one that is being received."""
    uploads = UploadStore(tmp_path / "spool", 10, FolderStore(tmp_path / "store"))
    (tmp_path / "spool").mkdir()
    for name, age in (("old", ORPHAN_SECONDS + 60), ("new", 60)):
        uploads.path(name).write_bytes(b"rows")
        os.utime(uploads.path(name), (time.time() - age,) * 2)
    return uploads


def test_a_replica_removes_old_uploads_at_its_start(tmp_path: Path, uploads: UploadStore) -> None:
    (tmp_path / "trainer.local.lock").touch()  # of a trainer that has ended
    sweeper = SpoolSweeper(uploads, tmp_path)
    sweeper.start()
    with contextlib.ExitStack() as stack:
        stack.callback(sweeper.stop)
        wait_for(lambda: not uploads.path("old").exists())
    assert uploads.path("new").exists()


def test_the_uploads_of_a_trainer_on_the_same_machine_stay(tmp_path: Path, uploads: UploadStore) -> None:
    with FileLock(tmp_path / "trainer.gpu-1.lock"):
        SpoolSweeper(uploads, tmp_path).sweep()
        assert uploads.path("old").exists()
    SpoolSweeper(uploads, tmp_path).sweep()
    assert not uploads.path("old").exists()
