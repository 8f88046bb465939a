"""Results are written to a path without damage to what is there."""

import os
import threading
from pathlib import Path

import pytest

from linserve._sinks import sink_of


def write(path: Path, content: bytes, *, succeeded: bool = True) -> None:
    sink = sink_of(path)
    sink.start()
    sink.feed(content)
    sink.close(succeeded=succeeded)


def test_a_file_has_the_new_content_only_after_a_success(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write(path, b"first")
    write(path, b"second", succeeded=False)
    assert path.read_bytes() == b"first"
    write(path, b"third")
    assert path.read_bytes() == b"third"
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.touch(0o600)
    write(path, b"rows")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link_and_its_target_gets_the_content(tmp_path: Path) -> None:
    link, target = tmp_path / "latest.csv", tmp_path / "day-1.csv"
    link.symlink_to(target)
    write(link, b"rows")
    assert link.is_symlink()
    assert target.read_bytes() == b"rows"


def test_a_named_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(path.read_bytes()))
    reader.start()
    write(path, b"rows")
    reader.join()
    assert received == [b"rows"]
    assert path.is_fifo()


def test_a_folder_is_refused_and_no_file_is_left_in_it_or_next_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="results"):
        write(folder, b"rows")
    assert [*tmp_path.rglob("*")] == [folder]
