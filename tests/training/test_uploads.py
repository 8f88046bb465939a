import os
import time
from pathlib import Path

import pytest

from app.errors import Unavailable
from app.training.uploads import ORPHAN_SECONDS, UploadStore


class Interrupted(BaseException):
    """Ends a request like a cancellation, which `except Exception` does not catch."""


def written(spool: UploadStore, content: bytes = b"rows") -> str:
    upload = spool.new()
    with spool.open_new(upload) as file:
        file.write(content)
    return upload


def aged(spool: UploadStore, upload: str, seconds: float) -> str:
    then = time.time() - seconds
    os.utime(spool.path(upload), (then, then))
    return upload


def test_an_upload_has_what_was_written_in_the_block(tmp_path: Path) -> None:
    spool = UploadStore(tmp_path / "state" / "spool")
    upload = written(spool, b"a,b\n1,2\n")
    assert spool.path(upload).read_bytes() == b"a,b\n1,2\n"
    assert spool.path(upload).parent == tmp_path / "state" / "spool"


def test_names_of_uploads_are_unique_and_plain_file_names(tmp_path: Path) -> None:
    spool = UploadStore(tmp_path)
    names = {spool.new() for _ in range(1000)}
    assert len(names) == 1000
    assert all(name.isalnum() and name.isascii() for name in names)
    assert not list(tmp_path.iterdir())


def test_an_upload_is_never_overwritten(tmp_path: Path) -> None:
    spool = UploadStore(tmp_path)
    upload = spool.new()
    spool.path(upload).write_bytes(b"first")
    with pytest.raises(Unavailable), spool.open_new(upload):
        pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Interrupted])
def test_an_interrupted_upload_leaves_no_file(tmp_path: Path, error: type[BaseException]) -> None:
    spool = UploadStore(tmp_path)
    upload = spool.new()

    def break_off() -> None:
        with spool.open_new(upload) as file:
            file.write(b"half a")
            raise error

    with pytest.raises(error):
        break_off()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_an_upload_is_kept_unless_the_block_raises(tmp_path: Path, error: type[BaseException]) -> None:
    spool = UploadStore(tmp_path)
    kept, dropped = written(spool), written(spool)
    with spool.remove_on_error(kept):
        pass
    with pytest.raises(error), spool.remove_on_error(dropped):
        raise error
    assert [entry.name for entry in tmp_path.iterdir()] == [kept]


def test_an_upload_can_be_removed_twice(tmp_path: Path) -> None:
    spool = UploadStore(tmp_path)
    one, other = written(spool), written(spool)
    spool.remove(one)
    spool.remove(one)
    assert [entry.name for entry in tmp_path.iterdir()] == [other]


def test_a_sweep_removes_only_old_uploads_that_no_job_needs(tmp_path: Path) -> None:
    spool = UploadStore(tmp_path)
    orphan = aged(spool, written(spool), ORPHAN_SECONDS + 60)
    waiting = aged(spool, written(spool), ORPHAN_SECONDS * 100)
    arriving = aged(spool, written(spool), ORPHAN_SECONDS - 60)
    spool.sweep({waiting})
    assert not spool.path(orphan).exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {waiting, arriving}


def test_a_sweep_without_a_folder_does_nothing(tmp_path: Path) -> None:
    UploadStore(tmp_path / "none").sweep(set())
    assert not (tmp_path / "none").exists()
