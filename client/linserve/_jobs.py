"""Training jobs."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, cast

from linserve._results import Progress
from linserve.errors import JobCancelled, JobFailed, Problem, error_from_problem, problem_from_json

if TYPE_CHECKING:
    from linserve._async_client import AsyncClient
    from linserve._client import Client

Status: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class JobView:
    """A job as the service described it last. `raw` is that description."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw: dict[str, Any] = dict(raw)

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def status(self) -> Status:
        return cast("Status", self.raw["status"])

    @property
    def ended(self) -> bool:
        return self.raw["finished_at"] is not None

    @property
    def model(self) -> str:
        return str(self.raw["model"])

    @property
    def version(self) -> int | None:
        """The version that the job published."""
        return cast("int | None", self.raw["version"])

    @property
    def progress(self) -> Progress | None:
        return cast("Progress | None", self.raw["progress"])

    @property
    def metrics(self) -> dict[str, Any] | None:
        return cast("dict[str, Any] | None", self.raw["metrics"])

    @property
    def loss_curve(self) -> list[tuple[int, float]]:
        """[epoch, loss] of a gradient descent."""
        return [(int(epoch), float(loss)) for epoch, loss in self.raw.get("loss_curve") or ()]

    @property
    def warnings(self) -> list[str]:
        return list(self.raw["warnings"])

    @property
    def error(self) -> Problem | None:
        """Why the job failed."""
        error = self.raw["error"]
        return None if error is None else problem_from_json(error)

    @property
    def created_at(self) -> datetime:
        return datetime.fromisoformat(self.raw["created_at"])

    @property
    def finished_at(self) -> datetime | None:
        text = self.raw["finished_at"]
        return None if text is None else datetime.fromisoformat(text)

    def raise_for_status(self) -> Self:
        """Return the job. Raises JobFailed or JobCancelled if it ended so."""
        if self.status == "failed":
            problem = self.error or Problem("", "Failed", 500, "The job failed.")
            raise JobFailed(self.id, problem) from error_from_problem(problem)
        if self.status == "cancelled":
            raise JobCancelled(self.id)
        return self

    def __repr__(self) -> str:
        version = "" if self.version is None else f", version={self.version}"
        return f"<{type(self).__name__} {self.id} model={self.model!r}, status={self.status!r}{version}>"


class Job(JobView):
    """A job of a Client."""

    def __init__(self, raw: Mapping[str, Any], client: "Client") -> None:
        super().__init__(raw)
        self._client = client

    def refresh(self) -> Self:
        """Read the job again."""
        self.raw = self._client.job(self.id).raw
        return self

    def wait(self, callback: "Callable[[Job], object] | None" = None, *, timeout: float | None = None) -> Self:
        """Wait until the job has ended, and return it. `callback` is called with the job after each change.

        An interrupt (Ctrl-C) ends the wait, but not the job. Raises JobFailed or JobCancelled if the job ended so, or
        WaitTimeout after `timeout` seconds.
        """

        def changed(raw: dict[str, Any]) -> None:
            self.raw = raw
            if callback is not None:
                callback(self)

        self._client._follow(self, changed, timeout)  # noqa: SLF001 - a job is a part of the client
        return self.raise_for_status()

    def cancel(self) -> Self:
        """Cancel the job if it has not ended. Raises Conflict if it is publishing its version."""
        self.raw = self._client._cancel(self.id)  # noqa: SLF001 - as above
        return self


class AsyncJob(JobView):
    """A job of an AsyncClient."""

    def __init__(self, raw: Mapping[str, Any], client: "AsyncClient") -> None:
        super().__init__(raw)
        self._client = client

    async def refresh(self) -> Self:
        """Read the job again."""
        self.raw = (await self._client.job(self.id)).raw
        return self

    async def wait(
        self,
        callback: "Callable[[AsyncJob], object] | None" = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Self:
        """Wait for the end of the job, and return it; see `Job.wait`."""

        def changed(raw: dict[str, Any]) -> None:
            self.raw = raw
            if callback is not None:
                callback(self)

        await self._client._follow(self, changed, timeout)  # noqa: SLF001 - a job is a part of the client
        return self.raise_for_status()

    async def cancel(self) -> Self:
        """Cancel the job if it has not ended; see `Job.cancel`."""
        self.raw = await self._client._cancel(self.id)  # noqa: SLF001 - as above
        return self
