"""Jobs and predictions while processes are killed and versions change."""

import hashlib
import json
import os
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx
import pytest
from raw_http import GOOD, PROBE, connect, exchange, read_to_end
from service import MAX_SECONDS, NOTEBOOK, POLL_SECONDS, Service, arm, wait_for
from trainers import log_of, trainer, wait_until_ready

from app.jobs import supervisor

# Seconds of descent on any machine: the tests need the second of its checkpoints, which are a second apart.
EPOCHS = 240_000
DESCENT = {"kind": "gradient_descent", "epochs": EPOCHS, "learning_rate": 1e-4}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Service]:
    """A service with two web workers, which a test may kill."""
    running = Service(tmp_path, workers=2, environment=failpoints(tmp_path)).start()
    yield running
    running.kill()


def failpoints(folder: Path) -> dict[str, str]:
    """Make a folder for the failpoints of the service in this folder. Return the variable that names it."""
    steps = folder / "steps"
    steps.mkdir(parents=True)
    return {"CHAOS_FAILPOINTS": str(steps)}


class PredictionActivity:
    """Predictions on own connections, with short pauses. The predictions are kept by version."""

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
        with httpx.Client(base_url=url, timeout=MAX_SECONDS) as client:
            while not self._stop.wait(POLL_SECONDS):
                try:
                    response = client.post("/predict", json={"instances": [[75, 63, 44]]})
                except httpx.TransportError as error:
                    self._note(None, repr(error))
                else:
                    self._note(response, response.text)

    def _note(self, response: httpx.Response | None, text: str) -> None:
        with self._lock:
            self.count += 1
            if response is None or response.status_code != httpx.codes.OK:
                self.failures.append(text)
            else:
                prediction = response.json()
                self.answers.setdefault(prediction["version"], set()).add(tuple(prediction["predictions"][0]))


def stop_in_the_middle(service: Service, job_id: str) -> Path:
    """Stop the trainer of a descent while it writes its second checkpoint. Return the path of the first."""
    checkpoint = service.state / "checkpoints" / f"{job_id}.json"
    wait_for(checkpoint.exists)
    wait_for(arm(service.state.parent / "steps", "checkpoint_opened", signal.SIGSTOP).exists)
    return checkpoint


def is_stopped(pid: int) -> bool:
    return "\nState:\tT" in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.slow
def test_descent_resumes_after_its_trainer_and_then_every_web_worker_is_killed(pair: Service) -> None:
    before = pair.web_workers()

    def answers() -> bool:
        try:
            return pair.client.get("/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False  # This connection belonged to the killed worker. The next one goes to another worker.

    with PredictionActivity(pair, connections=1) as traffic:
        job_id = pair.submit(**NOTEBOOK, solver=DESCENT)
        stop_in_the_middle(pair, job_id)
        (trainer,) = pair.trainers()
        os.kill(trainer, signal.SIGKILL)
        checkpoint = stop_in_the_middle(pair, job_id)
    assert traffic.failures == []
    assert set(traffic.answers) == {1}

    # One of them runs the trainer, which dies with it. Another worker starts the next trainer.
    for worker in before:
        os.kill(worker, signal.SIGKILL)
        wait_for(answers)

    job = pair.end_of(job_id)
    assert job["status"] == "succeeded", job["error"]
    assert job["progress"]["epoch"] == EPOCHS
    assert pair.log.read_text().count('"descent resumed"') >= 2
    assert not checkpoint.exists()
    assert list((pair.state / "spool").glob("*")) == []
    assert pair.client.get("/models/crop-yield").json()["versions"] == [1, 2]  # It is published once.
    assert not set(before) & set(pair.web_workers())
    assert len(pair.trainers()) == 1


@pytest.mark.slow
def test_descent_resumes_after_the_whole_service_is_killed_and_restarted(tmp_path: Path) -> None:
    service = Service(tmp_path, environment=failpoints(tmp_path)).start()
    try:
        job_id = service.submit(**NOTEBOOK, solver=DESCENT)
        queued = service.submit(**NOTEBOOK, promote="never")
        stop_in_the_middle(service, job_id)

        service.kill()
        assert service.trainers() == []
        resumed = arm(tmp_path / "steps", "checkpoint_opened", signal.SIGSTOP)
        service.start()
        wait_for(resumed.exists)

        assert service.predict([75, 63, 44])["version"] == 1
        (trainer,) = service.trainers()
        wait_for(lambda: is_stopped(trainer))
        os.kill(trainer, signal.SIGCONT)
        job = service.end_of(job_id)
        assert job["status"] == "succeeded", job["error"]
        assert service.end_of(queued)["status"] == "succeeded"
        assert '"descent resumed"' in service.log.read_text()  # It did not start from the beginning.
        straight = service.train(**NOTEBOOK, solver=DESCENT)
        assert job["loss_curve"] == straight["loss_curve"]
        weights, same = (
            service.client.get(f"/models/crop-yield/versions/{one['version']}").json()["coefficients"]
            for one in (job, straight)
        )
        assert weights == same  # bit for bit
    finally:
        service.kill()


@pytest.mark.slow
def test_event_streams_do_not_delay_a_stop(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    job_id = service.submit(**NOTEBOOK, solver={**DESCENT, "epochs": 10_000_000})
    followed = service.follow(job_id)
    next(job for job in followed if job["status"] == "running")
    os.kill(service.pid, signal.SIGTERM)

    assert all(job["status"] == "running" for job in followed)  # The stream ends without an error.
    assert service.stop() == -signal.SIGTERM  # uvicorn's exit status after a graceful stop


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGHUP, signal.SIGINT))],
)
def test_incomplete_request_is_answered_before_a_stop(tmp_path: Path, number: signal.Signals) -> None:
    service = Service(tmp_path, trainer_mode="external").start()
    with connect(service) as connection:
        connection.sendall(GOOD[:-10])
        assert exchange(service, PROBE)  # The bytes sent before, on an earlier connection, have arrived.
        os.kill(service.pid, number)
        wait_for(lambda: "Shutting down" in service.log.read_text())
        connection.sendall(GOOD[-10:])
        response = read_to_end(connection)
    assert response.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in response
    assert service.ended() in (-number, 0)  # uvicorn exits with 0 after SIGINT.


@pytest.mark.slow
def test_upload_that_outlasts_the_graceful_stop_gets_a_problem_and_leaves_no_file(tmp_path: Path) -> None:
    service = Service(tmp_path, graceful_seconds=2, trainer_mode="external").start()
    with connect(service) as connection:
        head = "POST /train?targets=y HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/csv\r\ncontent-length: 9000"
        connection.sendall(head.encode() + b"\r\n\r\nx,y\n" + b"1,2\n" * 2000)
        wait_for(lambda: list((service.state / "spool").glob("*")))
        os.kill(service.pid, signal.SIGTERM)
        response = read_to_end(connection)
    assert response.startswith(b"HTTP/1.1 503 ")
    assert b"application/problem+json" in response
    service.ended()
    assert list((service.state / "spool").glob("*")) == []
    assert "Traceback" not in service.log.read_text()


def test_supervisor_retries_until_the_state_folder_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    began = threading.Event()
    monkeypatch.setattr(supervisor, "MAX_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(supervisor.Supervisor, "_supervise", lambda *_: began.set())
    state = tmp_path / "state"
    state.write_text("no folder")
    supervised = supervisor.Supervisor(state / "trainer.lock")
    supervised.start()
    try:
        wait_for(lambda: "trainer not started" in caplog.text)
        state.unlink()
        assert began.wait(MAX_SECONDS)
    finally:
        supervised.stop()


def test_trainer_dies_with_the_service(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    service.train(**NOTEBOOK)
    (pid,) = service.trainers()

    watched = os.pidfd_open(pid)
    try:
        os.kill(service.pid, signal.SIGKILL)
        # Readable when the process has exited.
        assert select.select([watched], [], [], MAX_SECONDS)[0]
    finally:
        os.close(watched)
        service.kill()


@pytest.mark.slow
def test_external_trainer_waits_until_the_embedded_one_ends(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    log = log_of(service, "local")
    try:
        wait_for(service.trainers)
        service.train(**NOTEBOOK)  # The embedded trainer has the lock.
        with trainer(service, "local"):
            wait_for(lambda: "another trainer works here" in log.read_text())
            service.train(**NOTEBOOK)
            assert "trainer ready" not in log.read_text()
            service.stop()
            wait_until_ready(service, "local")
    finally:
        service.kill()


@pytest.mark.slow
def test_worker_that_cannot_read_its_key_file_does_not_stop_the_others(tmp_path: Path) -> None:
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
        with httpx.Client(base_url=service.url, headers={"x-api-key": "secret"}, timeout=MAX_SECONDS) as client:
            assert client.get("/models").status_code == httpx.codes.OK
        keys.write_text(good)
        wait_for(lambda: begun() == 3)
        assert "Traceback" not in service.log.read_text()
    finally:
        service.stop()


@pytest.mark.slow
def test_one_of_two_workers_runs_a_trainer_and_both_serve_what_it_publishes(pair: Service) -> None:
    job = pair.train(**NOTEBOOK)

    assert len(pair.trainers()) == 1
    versions = set()
    for _ in range(20):  # each on a new connection, so that both workers get some
        response = exchange(pair, GOOD)
        assert response is not None
        versions.add(json.loads(response.body)["version"])
    assert versions == {job["version"]} == {2}
