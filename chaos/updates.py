"""Many small updates of one model, and the check of the model after them."""

import random
import time
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from service import INPUTS, TARGETS, Service

from app.registry.version_file import Version
from app.regression.sufficient_statistics import SufficientStatistics
from chaos.acts import MODEL
from chaos.ledger import audit
from chaos.violation import demand

END_SECONDS = 150.0
POLLED = 5  # Oldest updates that are polled at a time.
MAX_ROWS = 4  # Rows of an update.
TOLERANCE = 1e-9  # Relative error of sums over all rows.

Matrix = NDArray[np.float64]


class Updates:
    """Submits updates of the shipped model, whose rows are known, and follows their jobs."""

    def __init__(self, *services: Service) -> None:
        """Send updates to these services, which share one models folder."""
        self._services = services
        self._rows = [np.hstack([INPUTS, TARGETS])]  # rows of the shipped version, then of each update
        self._open: dict[str, Service] = {}  # service of each update under way, by job
        self._last_end = time.monotonic()

    @property
    def submitted(self) -> int:
        return len(self._rows) - 1

    @property
    def ended(self) -> int:
        return self.submitted - self.under_way

    @property
    def under_way(self) -> int:
        """The number of updates that are not known to have ended."""
        return len(self._open)

    def submit(self, service: Service | None = None) -> None:
        """Submit an update of a few rows of whole numbers, whose sums are exact, to this service or any."""
        count, width = random.randint(1, MAX_ROWS), len(INPUTS[0])
        rows = np.array([[float(random.randint(0, 200)) for _ in self._rows[0][0]] for _ in range(count)])
        body = {"instances": rows[:, :width].tolist(), "targets": rows[:, width:].tolist()}
        service = service or random.choice(self._services)
        answer = service.client.post("/train", json={**body, "mode": "update", "promote": "always"})
        accepted = answer.status_code == httpx.codes.ACCEPTED
        demand(accepted, f"update refused: {answer.status_code} {answer.text}")
        self._rows.append(rows)
        self._open[str(answer.json()["id"])] = service

    def follow(self) -> None:
        """Read the jobs of the oldest updates. Raises Violation if one did not succeed, or if none ends."""
        for job, service in list(self._open.items())[:POLLED]:
            answer = service.client.get(f"/jobs/{job}")
            demand(answer.status_code == httpx.codes.OK, f"job {job} is lost: {answer.status_code} {answer.text}")
            view: dict[str, Any] = answer.json()
            if view["finished_at"]:
                demand(view["status"] == "succeeded", f"job {job} {view['status']}: {view['error']}")
                del self._open[job]
                self._last_end = time.monotonic()
            late = time.monotonic() - self._last_end > END_SECONDS
            demand(not late, f"no update has ended for {END_SECONDS:g} s; job {job} is still {view['status']}")

    def check(self) -> None:
        """Raise Violation unless the current version is the fit of all rows, each counted once in its own version."""
        versions = audit(self._services[0].models)
        right = list(range(1, self.submitted + 2))
        demand(sorted(versions) == right, f"versions {sorted(versions)} after {self.submitted} updates")
        current = (self._services[0].models / MODEL / "current").readlink().stem
        check_rows(versions[int(current)], np.vstack(self._rows))


def check_rows(version: Version, rows: Matrix) -> None:
    """Raise Violation unless the version is the fit of these rows, inputs and targets, each counted once."""
    statistics, number = version.model.statistics, version.card.version
    demand(
        version.card.rows == len(rows),
        f"version {number} has {version.card.rows} rows, but {len(rows)} were trained on",
    )
    x, y = rows[:, : statistics.features], rows[:, statistics.features :]
    sums, right = _sums(statistics), _sums(SufficientStatistics.from_rows(x, y))
    demand(
        statistics.effective_rows == len(rows),
        f"version {number} counts {statistics.effective_rows} of {len(rows)} rows",
    )
    demand(np.allclose(sums, right, rtol=TOLERANCE, atol=0), f"version {number} has other sums than its rows")
    expected, *_ = np.linalg.lstsq(np.column_stack([np.ones(len(x)), x]), y, rcond=None)
    fitted = np.vstack([version.model.intercept, version.model.coef.T])
    same = np.allclose(fitted, expected, rtol=1e-6, atol=1e-6)
    demand(same, f"version {number} has other coefficients than a fit of its rows")


def _sums(statistics: SufficientStatistics) -> Matrix:
    """Return the sums of all columns and of their products, from the factor R of the rows [1, x, y]: R'R."""
    columns = len(statistics.shift)
    factor = statistics.rescaled_factor(np.zeros(columns), np.ones(columns))
    return np.asarray(factor.T @ factor)
