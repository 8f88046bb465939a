"""Replicas and trainers that share one Postgres and one bucket, all of them killed or cut off at random."""

import contextlib
import math
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import psycopg
from buckets import FaultyProxy, bucket_url, environment, faulty_proxy
from postgres import Postgres
from service import INPUTS, ROOT, TARGETS, Service

from chaos.acts import MODEL, Counts
from chaos.line import Ended, Line, Truth, Wrong
from chaos.stage import SMALL, Environment
from chaos.store_audit import StoredVersions
from chaos.updates import MAX_ROWS, Matrix, check_rows
from chaos.violation import demand
from chaos.watching import RATE

OTHER_MODELS = 5  # Models that are trained besides the one that is updated.
UNDER_WAY = 20  # Jobs under way at a time.
ANSWER_SECONDS = 120.0  # Longest time until a request is accepted.
END_SECONDS = 240.0  # Longest time in which no job ends.
POLLED = 5  # Oldest jobs that are polled at a time.
CUT_SECONDS = 5.0  # Time after the start of a killed replica in which old connections may be found cut.
PAUSE = 0.02  # Seconds between two predictions of a replica.
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Size:
    """The number of processes, and the length of a run and of its faults."""

    processes: int = 3  # replicas, and as many trainers
    least_jobs: int = 20  # jobs of the shortest run, half of them updates
    max_between: int = 8  # most jobs that are submitted between two faults
    fault_seconds: float = 10.0  # time for which the bucket fails, or Postgres is read-only


LITTLE = Size(processes=2, least_jobs=8, max_between=3, fault_seconds=3.0)


class Processes:
    """Replicas and trainers, each with a folder of its own. They are killed at the end of the block."""

    def __init__(self, folder: Path, shared: dict[str, str], count: int) -> None:
        shared = {**shared, "LINSERVE_TRAINER_MODE": "external"}
        self.replicas = [Service(folder / f"replica-{number}", environment=shared) for number in range(1, count + 1)]
        self._trainers: dict[str, subprocess.Popen[bytes]] = {}
        self._folder, self._shared = folder, shared
        self.deaths = 0
        self.ready_seconds: list[float] = []  # seconds between each start of a replica and its first answer
        self._down: set[int] = set()  # places of the replicas that are being replaced
        self._killed_at = [-math.inf] * count

    def __enter__(self) -> Self:
        for replica in self.replicas:
            self._start_replica(replica)
        for number in range(1, len(self.replicas) + 1):
            self._start_trainer(f"trainer-{number}")
        return self

    def __exit__(self, *_: object) -> None:
        for trainer in self._trainers.values():
            trainer.kill()
            trainer.wait()
        for replica in self.replicas:
            replica.kill()

    def kill_replica(self) -> None:
        """Kill one replica, and start it again without its folder, as on another machine."""
        place = random.randrange(len(self.replicas))
        replica = self.replicas[place]
        self._down.add(place)
        replica.kill()
        shutil.rmtree(replica.state)
        self._start_replica(replica)
        self._killed_at[place] = time.monotonic()
        self._down.discard(place)
        self.deaths += 1

    def was_killed(self, place: int) -> bool:
        """Return True if the replica is down, or was so a moment ago, so that a connection to it may be cut."""
        return place in self._down or time.monotonic() - self._killed_at[place] < CUT_SECONDS

    def kill_trainer(self) -> None:
        """Kill a trainer. Start one with its name, or with another one as if its machine was gone."""
        name = random.choice(sorted(self._trainers))
        trainer = self._trainers.pop(name)
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
        self.deaths += 1
        self._start_trainer(random.choice([name, f"trainer-{uuid.uuid4().hex[:8]}"]))

    def pause_trainer(self) -> Callable[[], None]:
        """Stop a trainer. Return the call that continues it."""
        trainer = random.choice(list(self._trainers.values()))
        trainer.send_signal(signal.SIGSTOP)
        return lambda: trainer.send_signal(signal.SIGCONT)

    def revive(self) -> None:
        """Restart trainers that have exited, as their supervisor does."""
        for name, trainer in list(self._trainers.items()):
            if trainer.poll() is not None:
                self._start_trainer(name)

    def _start_replica(self, replica: Service) -> None:
        started = time.monotonic()
        replica.start()
        self.ready_seconds.append(time.monotonic() - started)

    def _start_trainer(self, name: str) -> None:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        own = {"LINSERVE_TRAINER_NAME": name, "LINSERVE_STATE_DIR": str(folder / "state")}
        own["LINSERVE_MODELS_DIR"] = str(folder / "models")
        with (folder / "trainer.log").open("ab") as log:
            self._trainers[name] = subprocess.Popen(
                [sys.executable, "-m", "app.trainer"],
                cwd=ROOT,
                env=self.replicas[0].environment | self._shared | own,
                stdin=subprocess.DEVNULL,
                stderr=log,
            )


class Jobs:
    """Updates of one model, whose rows are all known, and trainings of other models, sent to any replica."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.rows: list[Matrix] = [np.hstack([INPUTS, TARGETS])]  # of the shipped version, then of each update
        self._open: list[str] = []
        self.trained: Counter[str] = Counter()  # trainings by model
        self._last_end = time.monotonic()

    @property
    def submitted(self) -> int:
        return self.updates + self.trainings

    @property
    def trainings(self) -> int:
        return self.trained.total()

    @property
    def updates(self) -> int:
        return len(self.rows) - 1

    @property
    def under_way(self) -> int:
        return len(self._open)

    def update(self) -> None:
        rows = np.array([[float(random.randint(0, 200)) for _ in range(5)] for _ in range(random.randint(1, MAX_ROWS))])
        self._submit({"instances": rows[:, :3].tolist(), "targets": rows[:, 3:].tolist(), "mode": "update"})
        self.rows.append(rows)

    def train(self) -> None:
        names = {"feature_names": ["a", "b", "c"], "target_names": ["d", "e"]}
        model = f"other-{random.randrange(OTHER_MODELS)}"
        self._submit({"instances": INPUTS, "targets": TARGETS, "model": model, **names})
        self.trained[model] += 1

    def follow(self) -> None:
        """Read the oldest jobs. Raises Violation if one did not succeed, or if none ends."""
        for job in self._open[:POLLED]:
            answer = self._until(lambda job=job: self._request("GET", f"/jobs/{job}"), {httpx.codes.OK})  # type: ignore[misc]
            view: dict[str, Any] = answer.json()
            if view["finished_at"]:
                demand(view["status"] == "succeeded", f"job {job} {view['status']}: {view['error']}")
                self._open.remove(job)
                self._last_end = time.monotonic()
            late = time.monotonic() - self._last_end > END_SECONDS
            demand(not late, f"no job has ended for {END_SECONDS:g} s; job {job} is still {view['status']}")

    def _submit(self, body: dict[str, Any]) -> None:
        """Send a training until it is acknowledged. The key makes it one job, however often it is sent."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        answer = self._until(
            lambda: self._request("POST", "/train", json=body, headers=headers), {httpx.codes.ACCEPTED}
        )
        self._open.append(str(answer.json()["id"]))

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        replica = random.choice(self._processes.replicas)
        with contextlib.suppress(httpx.TransportError):
            return replica.client.request(method, path, **options)
        return None

    def _until(self, ask: Callable[[], httpx.Response | None], expected: set[int]) -> httpx.Response:
        """Repeat a request while nobody answers, or the answer is 503 or 429 with a time to retry."""
        end = time.monotonic() + ANSWER_SECONDS
        while True:
            answer = ask()
            if answer is not None and answer.status_code in expected:
                return answer
            if answer is not None:
                retried = answer.status_code in {503, 429, 409} and (
                    "retry-after" in answer.headers or answer.status_code == httpx.codes.CONFLICT
                )
                demand(retried, f"answered {answer.status_code} {answer.text}")
            demand(time.monotonic() < end, f"not accepted for {ANSWER_SECONDS:g} s: {answer and answer.text}")
            time.sleep(POLL_SECONDS)


class Predictions:
    """Predictions from every replica without a pause. Each must be that of the version that it states."""

    def __init__(self, processes: Processes, versions: StoredVersions) -> None:
        self._processes = processes
        self._versions = versions
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(place,)) for place in range(len(processes.replicas))]
        self.answered = [0] * len(self._threads)
        self.faults: list[str] = []
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def rate(self) -> int:
        return round(sum(self.answered) / (time.monotonic() - self._started))

    def _run(self, place: int) -> None:
        truth = Truth(self._versions.version)
        port = int(self._processes.replicas[place].url.rpartition(":")[2])
        with contextlib.closing(Line(port, truth)) as line:
            while not self._stop.wait(PAUSE):
                try:
                    line.predict()
                    self.answered[place] += 1
                except Ended as ended:
                    if not self._processes.was_killed(place):
                        self.faults.append(f"a connection to replica {place + 1}, which was not killed, is {ended.how}")
                except Exception as error:
                    self.faults.append(str(error) if isinstance(error, Wrong) else repr(error))


def cluster(folder: Path, environment_: Environment, seconds: float, updates: int = 0) -> Counts:
    """Kill replicas and trainers, restart Postgres, and let the bucket fail, while jobs run.

    No acknowledged job is lost, none is published twice, the rows of all updates add up, and predictions never fail
    because of the bucket or the database. If `updates` is given, it is the number of jobs, and
    replaces the time limit. Half of the jobs are updates of one model.
    """
    url = bucket_url()
    size = LITTLE if SMALL in environment_ else Size()
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(Postgres())
        proxy = stack.enter_context(faulty_proxy())
        shared = {**environment_, **environment(proxy.url), "LINSERVE_STORAGE": url}
        shared["LINSERVE_DATABASE_URL"] = postgres.new_database()
        processes = stack.enter_context(Processes(folder, shared, size.processes))
        versions = StoredVersions(url, MODEL)  # not through the proxy
        sent = Jobs(processes)
        with Predictions(processes, versions) as predictions:
            is_enough = _enough(sent, 0.0 if updates else seconds, updates or size.least_jobs)
            counts = _disturb(processes, postgres, proxy, sent, is_enough, size=size)
        demand(
            not predictions.faults, f"{len(predictions.faults)} predictions failed, such as {predictions.faults[:3]}"
        )
        demand(min(predictions.answered) > 0, f"predictions answered by replica: {predictions.answered}")
        for model, trainings in sent.trained.items():
            found = len(StoredVersions(url, model).audit())
            demand(found == trainings, f"{found} versions of {model} after {trainings} trainings")
        published = versions.audit()
        demand(len(published) == 1 + sent.updates, f"{len(published)} versions after {sent.updates} updates")
        current = versions.pointer().current
        demand(current is not None, "no version is current")
        check_rows(published[current or 0], np.vstack(sent.rows))
        counts["jobs"] += sent.submitted
        counts["updates"] += sent.updates
        counts["versions"] += len(published)
        counts["predictions"] += sum(predictions.answered)
        counts["kills"] += processes.deaths
        counts[RATE] = predictions.rate
        counts["slowest start, ms"] = round(1000 * max(processes.ready_seconds))
    return +counts


def _enough(sent: Jobs, seconds: float, jobs: int) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: sent.submitted >= jobs and time.monotonic() >= end


def _make_writable(postgres: Postgres) -> None:
    """End a read-only time, also if the server is being restarted."""
    while True:
        try:
            postgres.read_only(False)
        except psycopg.Error:
            time.sleep(POLL_SECONDS)
        else:
            return


def _disturb(
    processes: Processes,
    postgres: Postgres,
    proxy: FaultyProxy,
    sent: Jobs,
    is_enough: Callable[[], bool],
    *,
    size: Size,
) -> Counts:
    """Submit jobs and cause faults until it is enough, then wait for the end of all jobs."""
    counts = Counts()
    ends: list[threading.Timer] = []  # of faults, which last while requests are repeated

    def ending(seconds: float, end: Callable[[], None]) -> None:
        ends.append(threading.Timer(seconds, end))
        ends[-1].start()

    def fail() -> None:
        proxy.set(random.choice(["throttle", "hang", "refuse"]))
        ending(size.fault_seconds, lambda: proxy.set("ok"))

    def read_only() -> None:
        postgres.read_only(True)
        ending(size.fault_seconds, lambda: _make_writable(postgres))

    def pause() -> None:
        ending(2 * size.fault_seconds, processes.pause_trainer())

    def crash() -> None:
        postgres.kill()
        postgres.start()

    acts: dict[str, Callable[[], None]] = {
        "killed replicas": processes.kill_replica,
        "killed trainers": processes.kill_trainer,
        "paused trainers": pause,
        "restarts of Postgres": postgres.restart,
        "crashes of Postgres": crash,
        "cut connections to Postgres": postgres.cut_connections,
        "faults of the bucket": fail,
        "read-only times of Postgres": read_only,
    }
    due = iter(random.sample(sorted(acts), len(acts)))
    next_at = 1
    while not is_enough() or sent.under_way:
        if not is_enough() and sent.under_way < UNDER_WAY:
            (sent.update if sent.updates <= sent.trainings else sent.train)()
            if sent.submitted >= next_at:
                next_at = sent.submitted + random.randint(1, size.max_between)
                act = next(due, None) or random.choice(sorted(acts))  # each at least once in a long run
                acts[act]()
                counts[act] += 1
        processes.revive()
        sent.follow()
    for end in ends:
        end.join()
    return counts
