"""What is promised holds while processes are killed and versions are swapped."""

import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from service import NOTEBOOK, Service, wait_for

from app.jobs import supervisor

# Several seconds on an idle machine, were it not interrupted: long enough to be hit in the middle, wherever it runs.
EPOCHS = 120_000
DESCENT = {"kind": "gradient_descent", "epochs": EPOCHS, "learning_rate": 1e-4}


@pytest.fixture
def four(tmp_path: Path) -> Iterator[Service]:
    """A service with four web workers, which a test may hurt."""
    running = Service(tmp_path, workers=4).start()
    yield running
    running.kill()


class PredictionActivity:
    """Predictions without pause over connections of its own; every answer is kept by version."""

    def __init__(self, service: Service, connections: int = 4) -> None:
        self.answers: dict[int, set[tuple[float, ...]]] = {}
        self.count = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._predict, args=(service.url,)) for _ in range(connections)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _predict(self, url: str) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/predict", json={"instances": [[75, 63, 44]]})
                except httpx.TransportError as error:
                    self._note(None, repr(error))
                else:
                    self._note(answer, answer.text)

    def _note(self, answer: httpx.Response | None, text: str) -> None:
        with self._lock:
            self.count += 1
            if answer is None or answer.status_code != httpx.codes.OK:
                self.failures.append(text)
            else:
                found = answer.json()
                self.answers.setdefault(found["version"], set()).add(tuple(found["predictions"][0]))


def interrupted(service: Service, interrupt: Callable[[], None]) -> dict[str, Any]:
    """Descend, interrupt once a checkpoint is there, and return the job's end."""
    job_id = service.submit(**NOTEBOOK, solver=DESCENT)
    checkpoint = service.state / "checkpoints" / f"{job_id}.json"
    next(job for job in service.follow(job_id) if job["progress"] and checkpoint.exists())
    interrupt()
    job = service.end_of(job_id)
    assert job["status"] == "succeeded", job["error"]
    assert job["progress"]["epoch"] == EPOCHS
    assert '"descent resumed"' in service.log.read_text()
    assert not checkpoint.exists()
    assert list((service.state / "spool").glob("*")) == []
    versions = service.client.get("/models/crop-yield").json()["versions"]
    assert versions == [1, 2]  # published once
    return job


@pytest.mark.slow
def test_a_descent_goes_on_after_its_trainer_is_killed_and_nobody_notices(four: Service) -> None:
    def kill_trainer() -> None:
        (trainer,) = four.trainers()
        os.kill(trainer, signal.SIGKILL)

    with PredictionActivity(four, connections=1) as traffic:
        interrupted(four, kill_trainer)

    assert traffic.failures == []
    assert set(traffic.answers) <= {1, 2}


@pytest.mark.slow
def test_a_descent_goes_on_after_every_web_worker_is_killed_in_turn(four: Service) -> None:
    before = four.web_workers()

    def answers() -> bool:
        try:
            return four.client.get("/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False  # that connection was the killed worker's; the next is another's

    def kill_workers() -> None:
        # One of them runs the trainer, which dies with it; another worker takes over.
        for worker in before:
            os.kill(worker, signal.SIGKILL)
            wait_for(answers)

    interrupted(four, kill_workers)

    assert not set(before) & set(four.web_workers())
    assert len(four.trainers()) == 1


@pytest.mark.slow
def test_a_descent_goes_on_after_everything_is_killed_and_started_again(tmp_path: Path) -> None:
    straight = Service(tmp_path / "straight").start()
    hurt = Service(tmp_path / "hurt").start()
    try:
        job_id = hurt.submit(**NOTEBOOK, solver=DESCENT)
        queued = hurt.submit(**NOTEBOOK, promote="never")
        checkpoint = hurt.state / "checkpoints" / f"{job_id}.json"
        next(job for job in hurt.follow(job_id) if job["progress"] and checkpoint.exists())

        hurt.kill()
        assert hurt.trainers() == []
        hurt.start()

        assert hurt.predict([75, 63, 44])["version"] == 1
        job = hurt.end_of(job_id)
        assert job["status"] == "succeeded", job["error"]
        assert hurt.end_of(queued)["status"] == "succeeded"
        expected = straight.train(**NOTEBOOK, solver=DESCENT, wait=60)
        assert job["loss_curve"] == expected["loss_curve"]
        weights, same = (one.client.get("/models/crop-yield").json()["coefficients"] for one in (hurt, straight))
        assert weights == same  # to the last bit
        assert '"descent resumed"' in hurt.log.read_text()  # it did not begin again
    finally:
        hurt.kill()
        straight.kill()


@pytest.mark.slow
def test_a_stop_is_not_held_up_by_those_who_follow_or_wait(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    job_id = service.submit(**NOTEBOOK, solver={**DESCENT, "epochs": 10_000_000})
    followed = service.follow(job_id)
    next(job for job in followed if job["status"] == "running")
    os.kill(service.pid, signal.SIGTERM)

    assert all(job["status"] == "running" for job in followed)  # the stream ends, and not by an error
    assert service.stop() == -signal.SIGTERM  # as uvicorn ends once all is wound up


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_request_under_way_is_answered_before_a_stop(tmp_path: Path, number: signal.Signals) -> None:
    service = Service(tmp_path, trainer_mode="external").start()
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=10) as connection:
        body = b'{"instances": [[75, 63, 44]]}'
        head = f"POST /predict HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        connection.sendall(head.encode() + b"\r\n\r\n" + body[:10])
        service.client.get("/health/live")  # what was sent before is there
        os.kill(service.pid, number)
        wait_for(lambda: "Shutting down" in service.log.read_text())
        connection.sendall(body[10:])
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer
    assert service.ended() in (-number, 0)  # uvicorn takes Ctrl+C for an end like any other


@pytest.mark.slow
def test_an_upload_that_outlasts_a_stop_is_answered_with_a_problem_and_leaves_nothing(tmp_path: Path) -> None:
    service = Service(tmp_path, trainer_mode="external").start()
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=20) as connection:
        head = "POST /train?targets=y HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/csv\r\ncontent-length: 1000"
        connection.sendall(head.encode() + b"\r\n\r\nx,y\n1,2\n")
        wait_for(lambda: list((service.state / "spool").glob("*")))
        os.kill(service.pid, signal.SIGTERM)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"application/problem+json" in answer
    service.ended()
    assert list((service.state / "spool").glob("*")) == []
    assert "Traceback" not in service.log.read_text()


def test_a_trainer_is_tried_for_until_the_state_folder_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    began = threading.Event()
    monkeypatch.setattr(supervisor, "MAX_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(supervisor.Supervisor, "_supervise", lambda *_: began.set())
    state = tmp_path / "state"
    state.write_text("no folder")
    found = supervisor.Supervisor(state / "trainer.lock")
    found.start()
    try:
        wait_for(lambda: "trainer not started" in caplog.text)
        state.unlink()
        assert began.wait(10)
    finally:
        found.stop()


def test_the_trainer_dies_with_the_service(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    service.train(**NOTEBOOK)
    (trainer,) = service.trainers()

    os.kill(service.pid, signal.SIGKILL)
    watched = os.pidfd_open(trainer)
    try:
        # Readable once the process is gone.
        assert select.select([watched], [], [], 10)[0]
    finally:
        os.close(watched)
        service.kill()


@pytest.mark.slow
def test_a_trainer_started_apart_waits_for_the_one_of_the_service_to_end(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    log = tmp_path / "apart.log"
    with log.open("wb") as file:
        apart = subprocess.Popen(
            [sys.executable, "-m", "app.trainer"],
            env=os.environ | {"LINSERVE_STATE_DIR": str(service.state), "LINSERVE_MODELS_DIR": str(service.models)},
            stderr=file,
        )
    try:
        wait_for(lambda: "another trainer works here" in log.read_text())
        service.train(**NOTEBOOK)
        assert "trainer ready" not in log.read_text()
        service.stop()
        wait_for(lambda: "trainer ready" in log.read_text())
    finally:
        service.kill()
        apart.kill()
        apart.wait()


@pytest.mark.slow
def test_a_worker_that_finds_its_key_file_broken_takes_no_other_worker_with_it(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    good = f"ops admin {hashlib.sha256(b'secret').hexdigest()}\n"
    keys.write_text(good)
    service = Service(tmp_path, workers=2, api_keys_file=str(keys), trainer_mode="external").start()

    def begun() -> int:
        return service.log.read_text().count("Application startup complete")

    try:
        wait_for(lambda: begun() == 2)
        keys.write_text("nonsense")
        hurt, _ = service.web_workers()
        os.kill(hurt, signal.SIGKILL)
        wait_for(lambda: "LINSERVE_API_KEYS_FILE: Line 1" in service.log.read_text())
        with httpx.Client(base_url=service.url, headers={"x-api-key": "secret"}) as client:
            assert client.get("/models").status_code == httpx.codes.OK
        keys.write_text(good)
        wait_for(lambda: begun() == 3)
        assert "Traceback" not in service.log.read_text()
    finally:
        service.stop()


@pytest.mark.slow
def test_only_one_of_four_workers_runs_a_trainer_and_all_see_what_it_publishes(four: Service) -> None:
    job = four.train(**NOTEBOOK)

    assert len(four.trainers()) == 1
    versions = set()
    for _ in range(40):  # each on a connection of its own, so that every worker is asked
        answer = httpx.post(f"{four.url}/predict", json={"instances": [[75, 63, 44]]})
        versions.add(answer.json()["version"])
    assert versions == {job["version"]} == {2}
