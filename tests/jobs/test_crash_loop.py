import os
from pathlib import Path

import pytest

from app.errors import TrainerCrashed
from app.jobs.crash_loop import MAX_CRASHES, CrashLoopGuard


def begun(folder: Path, times: int, parent: str | None = "7", job: str = "job") -> None:
    for _ in range(times):
        CrashLoopGuard(folder / "attempt", parent).begin(job, folder / "checkpoint")


def test_a_job_that_crashes_its_trainer_repeatedly_is_abandoned(tmp_path: Path) -> None:
    begun(tmp_path, MAX_CRASHES)
    with pytest.raises(TrainerCrashed, match="5 times"):
        begun(tmp_path, 1)


def test_attempts_at_another_job_do_not_count(tmp_path: Path) -> None:
    begun(tmp_path, MAX_CRASHES)
    begun(tmp_path, MAX_CRASHES, job="other")


def test_attempts_before_an_orderly_end_do_not_count(tmp_path: Path) -> None:
    begun(tmp_path, MAX_CRASHES)
    CrashLoopGuard(tmp_path / "attempt", "7").end()
    begun(tmp_path, MAX_CRASHES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["attempt"]


def test_attempts_do_not_count_if_the_service_ended_with_its_trainer(tmp_path: Path) -> None:
    begun(tmp_path, MAX_CRASHES)
    begun(tmp_path, MAX_CRASHES, parent="8")


def test_attempts_do_not_count_if_the_job_wrote_a_checkpoint_between_them(tmp_path: Path) -> None:
    begun(tmp_path, MAX_CRASHES)
    (tmp_path / "checkpoint").touch()
    begun(tmp_path, MAX_CRASHES)
    os.utime(tmp_path / "checkpoint", (1, 1))
    begun(tmp_path, MAX_CRASHES)


@pytest.mark.parametrize("content", ["", "[", "[]", "7", '["job","7",null,"x"]'])
def test_a_damaged_count_of_attempts_is_ignored(tmp_path: Path, content: str) -> None:
    (tmp_path / "attempt").write_text(content)
    begun(tmp_path, MAX_CRASHES)


def test_a_job_runs_even_if_its_attempts_cannot_be_counted(tmp_path: Path) -> None:
    CrashLoopGuard(tmp_path / "none" / "attempt", None).begin("job", tmp_path / "checkpoint")
