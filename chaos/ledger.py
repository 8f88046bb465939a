"""Every job that the service acknowledged, with its expected end."""

import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
from service import INPUTS, NOTEBOOK, Service

from app.errors import ModelFileInvalid
from app.registry.model_card import ModelCard
from app.registry.version_file import Version, read
from chaos.violation import Violation, demand

ACKNOWLEDGE_SECONDS = 120.0
END_SECONDS = 150.0
CLEAN_SECONDS = 120.0  # Longest time until the rows of a cancelled job are removed.
POLL_SECONDS = 0.05

Promote = Literal["always", "never"]


@dataclass(frozen=True)
class Expected:
    """The expected end of a job, and the slope that identifies its version, or None for any version."""

    end: str
    slope: int | None = None


class Ledger:
    """Submits trainings, each with its own linear function, and checks how they end."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open: dict[str, Expected] = {}
        self._slope = 0
        self._published: dict[str, int] = {}
        self.closed = 0
        self.orphans = 0  # uploads whose request was cut off before their job was recorded; removed after an hour

    def fit(self, promote: Promote = "never") -> str:
        """Submit a job that must succeed. Its version predicts differently from all others."""
        self._slope += 1
        rows = np.array(INPUTS)
        targets = rows @ _weights(self._slope).T + self._slope
        body = {"instances": INPUTS, "targets": targets.tolist(), "promote": promote}
        return self._acknowledged(Expected("succeeded", self._slope), body)

    def descend(self, epochs: int, promote: Promote = "never") -> str:
        """Submit a long job with checkpoints."""
        solver = {"kind": "gradient_descent", "epochs": epochs, "learning_rate": 1e-4}
        return self._acknowledged(Expected("succeeded"), {**NOTEBOOK, "solver": solver, "promote": promote})

    def diverge(self) -> str:
        """Submit a job that must fail."""
        solver = {"kind": "gradient_descent", "epochs": 1000, "learning_rate": 100.0}
        return self._acknowledged(Expected("failed"), {**NOTEBOOK, "solver": solver})

    def cancel(self, job: str) -> None:
        answer = self._until_answered("POST", f"/jobs/{job}/cancel")
        if answer.status_code == httpx.codes.OK:
            self._open[job] = Expected("cancelled")

    def excuse(self, job: str) -> None:
        """Accept any end of this job."""
        self._open[job] = Expected("any")

    def expect_failure(self, job: str) -> None:
        """Expect the job to fail from now on."""
        self._open[job] = Expected("failed")

    def settle(self) -> None:
        """Wait until every job has ended. Raises Violation if one is lost or ended in the wrong status."""
        until = time.monotonic() + END_SECONDS
        for job, expected in self._open.items():
            ended = self._end_of(job, until)
            status = ended["status"]
            demand(
                expected.end in (status, "any"), f"job {job} {status}, and should have {expected.end}: {ended['error']}"
            )
            if status == "succeeded":
                self._published[job] = ended["version"]
        versions = audit(self._service.models)
        for job, version in self._published.items():  # those of earlier jobs must still be there
            _check_version(job, self._open.get(job), versions.get(version))
        self.closed += len(self._open)
        self._open.clear()
        self._check_spool()

    def _check_spool(self) -> None:
        until = time.monotonic() + CLEAN_SECONDS
        while (left := len(list(self._service.state.glob("spool/*")))) > self.orphans:
            demand(time.monotonic() < until, f"{left} uploads are left, though every job has ended")
            time.sleep(POLL_SECONDS)

    def _acknowledged(self, expected: Expected, body: dict[str, Any]) -> str:
        key = uuid.uuid4().hex  # a repeated request names the same job
        answer = self._until_answered("POST", "/train", json=body, headers={"Idempotency-Key": key})
        demand(answer.status_code == httpx.codes.ACCEPTED, f"training refused: {answer.status_code} {answer.text}")
        job = str(answer.json()["id"])
        self._open[job] = expected
        return job

    def _end_of(self, job: str, until: float) -> dict[str, Any]:
        while True:
            answer = self._until_answered("GET", f"/jobs/{job}")
            demand(answer.status_code == httpx.codes.OK, f"job {job} is lost: {answer.status_code} {answer.text}")
            view: dict[str, Any] = answer.json()
            if view["finished_at"] and view["status"] in ("succeeded", "failed", "cancelled"):
                return view
            demand(time.monotonic() < until, f"job {job} has not ended, it is still {view['status']}")
            time.sleep(POLL_SECONDS)

    def _until_answered(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send the request until a worker answers it."""
        until = time.monotonic() + ACKNOWLEDGE_SECONDS
        while True:
            try:
                return self._service.client.request(method, path, **request)
            except httpx.TransportError as error:
                if time.monotonic() > until:
                    raise Violation(f"{method} {path} is not answered: {error!r}") from None
                time.sleep(POLL_SECONDS)


def audit(models: Path, model: str = "crop-yield") -> dict[int, Version]:
    """Return all versions. Raises Violation if one is corrupt, misnamed, or published twice."""
    versions: dict[int, Version] = {}
    publications: dict[tuple[str, str], str] = {}
    for path in sorted((models / model).glob("*.safetensors")):
        try:
            version = read(path)
        except ModelFileInvalid as error:
            raise Violation(f"corrupt version: {error}") from None
        card = version.card
        demand(card.version == int(path.stem), f"the card of {path.name} has version {card.version}")
        for kind, name in _origin(card):
            twin = publications.setdefault((kind, name), path.name)
            demand(twin == path.name, f"{twin} and {path.name} are the same {kind}, published twice")
        versions[card.version] = version
    current = (models / model / "current").readlink()
    demand((models / model / current).is_file(), f"current points to {current}, which is not there")
    return versions


def _origin(card: ModelCard) -> list[tuple[str, str]]:
    return [(kind, name) for kind, name in (("upload", card.upload), ("job", card.job)) if name is not None]


def _check_version(job: str, expected: Expected | None, version: Version | None) -> None:
    if version is None:
        raise Violation(f"the version of job {job} is not there")
    demand(
        version.card.job == job, f"version {version.card.version} of job {job} was published by job {version.card.job}"
    )
    if expected is not None and expected.slope is not None:
        right = np.allclose(version.model.coef, _weights(expected.slope), rtol=1e-6, atol=1e-6)
        demand(right, f"version {version.card.version} of job {job} has other coefficients than a fit of its rows")


def _weights(slope: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.array([[1.0 + slope, 2.0, -1.0], [3.0, -float(slope), 1.0]])
