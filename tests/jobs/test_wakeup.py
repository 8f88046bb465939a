import threading
from pathlib import Path

from service import MAX_SECONDS

from app.jobs.wakeup import PollSchedule, wake_trainers

LONG = 3600.0


def polls_at_once(schedule: PollSchedule) -> bool:
    poll = threading.Thread(target=schedule.wait, args=(LONG,), daemon=True)
    poll.start()
    poll.join(MAX_SECONDS)
    return not poll.is_alive()


def test_each_trainer_of_a_state_folder_polls_at_once_when_a_job_is_recorded(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)  # longer than a socket address can be
    folder.mkdir()
    schedules = [PollSchedule(folder, name) for name in ("first", "second")]

    wake_trainers(folder)

    for schedule in schedules:
        assert polls_at_once(schedule)
        schedule.stop()


def test_a_message_to_a_killed_trainer_is_lost_and_its_successor_is_woken(tmp_path: Path) -> None:
    killed = PollSchedule(tmp_path, "local")
    killed.stop()
    wake_trainers(tmp_path)  # its socket is still there
    schedule = PollSchedule(tmp_path, "local")

    wake_trainers(tmp_path)

    assert polls_at_once(schedule)


def test_without_a_folder_a_trainer_polls_at_its_interval(tmp_path: Path) -> None:
    schedule = PollSchedule(tmp_path / "none", "local")
    wake_trainers(tmp_path / "none")

    assert not schedule.wait(0.001)
    threading.Timer(0.01, schedule.stop).start()
    assert schedule.wait(LONG)
