"""The state folder is removed while the service runs. Jobs acknowledged afterwards are kept."""

import shutil
from pathlib import Path

import pytest
from service import NOTEBOOK, Service, wait_for


@pytest.mark.slow
def test_a_job_acknowledged_after_the_state_folder_was_removed_exists_after_a_restart(tmp_path: Path) -> None:
    service = Service(tmp_path, workers=2).start()
    try:
        before = service.train(**NOTEBOOK)["id"]
        (trainer,) = service.trainers()
        removed = service.state.rename(tmp_path / "removed")  # in one step, because the processes go on making files
        shutil.rmtree(removed)
        first = service.submit(**NOTEBOOK, promote="never")
        assert service.client.get(f"/jobs/{before}").status_code == 404

        # A trainer that still reads the removed database would never run it.
        assert service.end_of(first)["status"] == "succeeded"
        wait_for(lambda: len(service.trainers()) == 1 and trainer not in service.trainers())
        assert '"job database replaced"' in service.log.read_text()
        second = service.submit(**NOTEBOOK, promote="never")
        service.kill()
        service.start()
        assert service.job(first)["status"] == "succeeded"
        assert service.end_of(second)["status"] == "succeeded"
        assert service.predict([75, 63, 44])["version"] == 2
    finally:
        service.kill()


@pytest.mark.slow
def test_a_trainer_whose_lock_file_is_removed_is_replaced(tmp_path: Path) -> None:
    service = Service(tmp_path, workers=2).start()
    try:
        service.train(**NOTEBOOK)
        before = service.trainers()
        (service.state / "trainer.local.lock").unlink()
        wait_for(lambda: len(service.trainers()) == 1 and service.trainers() != before)
        assert service.train(**NOTEBOOK)["status"] == "succeeded"
    finally:
        service.kill()
