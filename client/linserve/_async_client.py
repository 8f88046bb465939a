"""The client of a Linserve service for programs with an event loop."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from linserve._bodies import Source
from linserve._client import RETRIES, TIMEOUT
from linserve._jobs import AsyncJob, JobView, Status
from linserve._options import (
    CommonTrainingOptions,
    EvaluationOptions,
    Names,
    PredictionOptions,
    Promote,
    TrainingOptions,
)
from linserve._plans import models, predicting, training
from linserve._plans.predicting import Files, Selection
from linserve._plans.training import JobRequest
from linserve._results import Array, Exported, ModelSummary, Predictions, TablePrediction
from linserve._retries import Retries
from linserve._sinks import Output
from linserve._steps import Plan

if TYPE_CHECKING:
    import httpx
    from narwhals.typing import IntoFrame

T = TypeVar("T")
FrameT = TypeVar("FrameT", bound="IntoFrame")


class AsyncClient:
    """Client of a Linserve service for an event loop. It has the methods of `Client` as coroutines."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT,
        retries: int | Retries = RETRIES,
        http: "httpx.AsyncClient | None" = None,
    ) -> None:
        """Make a client of the service at `url`.

        The defaults of address and key are LINSERVE_URL and LINSERVE_API_KEY in the environment, otherwise the file of
        `linserve config`. `http` is an httpx client with other proxies or certificates, which the caller closes.
        """
        from linserve._http import Address, AsyncTransport  # httpx takes 100 ms.

        self._address = Address(url, api_key, timeout)
        self._transport = AsyncTransport(self._address, http)
        self._retries = retries if isinstance(retries, Retries) else Retries(retries)

    @property
    def url(self) -> str:
        """The address of the service."""
        return self._address.url

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, plan: Plan[T]) -> T:
        return await self._transport.run(plan)

    def _job(self, raw: Mapping[str, Any]) -> AsyncJob:
        return AsyncJob(raw, self)

    @overload
    async def predict(
        self,
        rows: Source,
        *,
        output: Output,
        output_format: str | None = None,
        format: str | None = None,
        **options: Unpack[PredictionOptions],
    ) -> TablePrediction: ...
    @overload
    async def predict(
        self,
        rows: Source,
        *,
        output_format: str | None = None,
        format: str | None = None,
        **options: Unpack[PredictionOptions],
    ) -> bytes: ...
    @overload
    async def predict(
        self, rows: list[dict[str, Any]], **options: Unpack[PredictionOptions]
    ) -> Predictions[dict[str, float]]: ...
    @overload
    async def predict(
        self, rows: list[list[Any]], **options: Unpack[PredictionOptions]
    ) -> Predictions[list[float]]: ...
    @overload
    async def predict(
        self, rows: list[Any] | tuple[Any, ...] | Array, **options: Unpack[PredictionOptions]
    ) -> Predictions[Any]: ...
    @overload
    async def predict(self, rows: FrameT, **options: Unpack[PredictionOptions]) -> FrameT: ...
    async def predict(
        self,
        rows: Any,
        *,
        output: Output | None = None,
        output_format: str | None = None,
        format: str | None = None,
        **options: Unpack[PredictionOptions],
    ) -> Any:
        """Predict for rows, which may also be lists in the order of the model's features, or an array."""
        return await self._run(predicting.predict(self._retries, rows, options, Files(format, output, output_format)))

    async def train(
        self,
        rows: Any,
        *,
        targets: Names | None = None,
        features: Names | None = None,
        terms: Names | None = None,
        model: str | None = None,
        promote: Promote = "always",
        format: str | None = None,
        wait: float = 0.0,
        idempotency_key: str | None = None,
        **options: Unpack[TrainingOptions],
    ) -> AsyncJob:
        """Train a new version on rows, or on the files at a URL such as `s3://bucket/*.parquet`."""
        named = {"targets": targets, "features": features, "terms": terms, "model": model, "promote": promote}
        plan = training.train(self._retries, rows, {**named, **options}, format, JobRequest(wait, idempotency_key))
        return self._job(await self._run(plan))

    async def update(
        self,
        rows: Any,
        *,
        model: str | None = None,
        decay: float | None = None,
        promote: Promote = "always",
        format: str | None = None,
        wait: float = 0.0,
        idempotency_key: str | None = None,
        **options: Unpack[CommonTrainingOptions],
    ) -> AsyncJob:
        """Add rows to those of the current version. `decay` multiplies the weight of earlier rows once per day."""
        named = {"mode": "update", "model": model, "decay": decay, "promote": promote}
        plan = training.train(self._retries, rows, {**named, **options}, format, JobRequest(wait, idempotency_key))
        return self._job(await self._run(plan))

    async def forget(
        self,
        rows: Any,
        *,
        model: str | None = None,
        trained_in: int | None = None,
        share: float | None = None,
        promote: Promote = "always",
        format: str | None = None,
        wait: float = 0.0,
        idempotency_key: str | None = None,
        **options: Unpack[CommonTrainingOptions],
    ) -> AsyncJob:
        """Remove rows from the current version; see `Client.forget`."""
        named = {"mode": "forget", "model": model, "trained_in": trained_in, "share": share, "promote": promote}
        plan = training.train(self._retries, rows, {**named, **options}, format, JobRequest(wait, idempotency_key))
        return self._job(await self._run(plan))

    async def merge(
        self,
        model: str,
        *files: Source,
        mode: Literal["merge", "forget"] = "merge",
        promote: Literal["always", "never"] = "always",
        l2: float | None = None,
        fit_intercept: bool | None = None,
        trained_in: int | None = None,
        share: float | None = None,
        wait: float = 0.0,
        idempotency_key: str | None = None,
    ) -> AsyncJob:
        """Add the rows of version files of other services to a model, or remove them again with mode `forget`."""
        options = {"mode": mode, "promote": promote, "l2": l2, "fit_intercept": fit_intercept}
        options |= {"trained_in": trained_in, "share": share}
        return self._job(
            await self._run(training.merge(self._retries, model, files, options, JobRequest(wait, idempotency_key)))
        )

    async def inspect(
        self,
        rows: Any,
        *,
        targets: Names | None = None,
        features: Names | None = None,
        model: str | None = None,
        format: str | None = None,
        **options: Unpack[TrainingOptions],
    ) -> dict[str, Any]:
        """Return how a training would read the rows: the kinds of the columns, their levels and gaps."""
        named = {"targets": targets, "features": features, "model": model}
        return await self._run(training.train(self._retries, rows, {**named, **options}, format))

    async def evaluate(
        self,
        rows: Any,
        model: str,
        *,
        version: int | None = None,
        format: str | None = None,
        **options: Unpack[EvaluationOptions],
    ) -> dict[str, Any]:
        """Return the errors of the model's predictions on rows whose targets are known."""
        return await self._run(predicting.evaluate(self._retries, rows, Selection(model, version), options, format))

    async def models(self) -> list[ModelSummary]:
        """Return all models, sorted by name."""
        return await self._run(models.models(self._retries))

    async def card(
        self,
        model: str,
        version: int | None = None,
        *,
        level: float | None = None,
        include: Literal["covariance"] | None = None,
    ) -> dict[str, Any]:
        """Return the card of a version, by default of the current one: coefficients, statistics and history."""
        return await self._run(models.card(self._retries, model, version, {"level": level, "include": include}))

    async def versions(self, model: str) -> list[int]:
        """Return the numbers of the model's versions."""
        numbers: list[int] = (await self.card(model))["versions"]
        return numbers

    async def promote(self, model: str, version: int) -> dict[str, Any]:
        """Make the version the current one. Return its card."""
        return await self._run(models.promote(self._retries, model, version))

    async def rollback(self, model: str) -> dict[str, Any]:
        """Promote the newest version before the current one. Return its card."""
        return await self._run(models.rollback(self._retries, model))

    async def delete(self, model: str, version: int | None = None, *, force: bool = False) -> None:
        """Delete a version, or the model with all versions. `force` allows it for the default model."""
        await self._run(models.delete(self._retries, model, version, force=force))

    async def export(
        self,
        model: str,
        version: int | None = None,
        *,
        format: str = "linserve",
        dialect: str | None = None,
        output: Output | None = None,
    ) -> Exported:
        """Return a version, by default the current one, in another format, or write it to `output`."""
        options = {"format": format, "dialect": dialect}
        return await self._run(models.export(self._retries, model, version, options, output))

    async def import_model(
        self,
        source: Any,
        model: str,
        *,
        features: list[str] | None = None,
        targets: list[str] | None = None,
        promote: Promote = "always",
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Publish a model that was fitted elsewhere as a new version. Return its card."""
        names = {"features": features, "targets": targets}
        options = {"promote": promote}
        plan = models.import_model(self._retries, model, source, names, options=options, key=idempotency_key)
        return await self._run(plan)

    async def jobs(
        self,
        *,
        status: Status | None = None,
        model: str | None = None,
        since: str | None = None,
        limit: int = 50,
    ) -> list[AsyncJob]:
        """Return the newest jobs, at most `limit`."""
        filters = {"status": status, "model": model, "since": since}
        return [self._job(raw) for raw in await self._run(training.jobs(self._retries, filters, limit))]

    async def job(self, job_id: str = "latest") -> AsyncJob:
        """Return a job."""
        return self._job(await self._run(training.job(self._retries, job_id)))

    async def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None
    ) -> Any:
        """Send another request of the HTTP API. Return the JSON of the response."""
        return await self._run(models.request(self._retries, method, path, params, json))

    async def _follow(self, job: JobView, on_change: Callable[[dict[str, Any]], None], timeout: float | None) -> None:
        await self._run(training.follow(self._retries, job.raw, on_change, timeout))

    async def _cancel(self, job_id: str) -> dict[str, Any]:
        return await self._run(training.cancel(self._retries, job_id))
