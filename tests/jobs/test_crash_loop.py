import os
from pathlib import Path

import pytest

from app.errors import TrainerCrashed
from app.jobs.crash_loop import MAX_CRASHES, CrashLoopGuard


def begun(folder: Path, times: int, parent: str | None = "7", job: str = "job") -> None:
    for _ in range(times):
        CrashLoopGuard(folder / "attempt", parent).begin(job, folder / "checkpoint")


def test_a_job_that_kills_its_trainer_again_and_again_is_given_up(tmp_path: Path) -> None:
    begun(tmp_path, MAX_CRASHES)
    with pytest.raises(TrainerCrashed, match="5 times"):
        begun(tmp_path, 1)


def test_attempts_do_not_count_from_one_job_to_another(tmp_path: Path) -> None:
    begun(tmp_path, MAX_CRASHES)
    begun(tmp_path, MAX_CRASHES, job="other")


def test_attempts_do_not_count_after_an_end_in_good_order(tmp_path: Path) -> None:
    begun(tmp_path, MAX_CRASHES)
    CrashLoopGuard(tmp_path / "attempt", "7").end()
    begun(tmp_path, MAX_CRASHES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["attempt"]


def test_attempts_do_not_count_where_the_service_died_with_its_trainer(tmp_path: Path) -> None:
    begun(tmp_path, MAX_CRASHES)
    begun(tmp_path, MAX_CRASHES, parent="8")


def test_attempts_do_not_count_where_the_job_got_on_between_them(tmp_path: Path) -> None:
    begun(tmp_path, MAX_CRASHES)
    (tmp_path / "checkpoint").touch()
    begun(tmp_path, MAX_CRASHES)
    os.utime(tmp_path / "checkpoint", (1, 1))
    begun(tmp_path, MAX_CRASHES)


@pytest.mark.parametrize("content", ["", "[", "[]", "7", '["job","7",null,"x"]'])
def test_a_note_that_a_power_cut_left_in_pieces_is_no_note(tmp_path: Path, content: str) -> None:
    (tmp_path / "attempt").write_text(content)
    begun(tmp_path, MAX_CRASHES)


def test_a_job_is_tried_where_it_cannot_be_noted(tmp_path: Path) -> None:
    CrashLoopGuard(tmp_path / "none" / "attempt", None).begin("job", tmp_path / "checkpoint")
