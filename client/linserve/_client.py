"""The client of a Linserve service."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from linserve._bodies import Source
from linserve._jobs import Job, JobView, Status
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

# Longest wait for a connection, for room to send, and for a part of a response, in seconds. The response to a large
# body may take ten times as long, because the service checks all rows before it responds.
TIMEOUT = 60.0
RETRIES = 4  # Attempts after the first.


class Client:
    """Client of a Linserve service. Several threads may use it at the same time.

    Rows are a frame of any kind that narwhals knows (pandas, polars, pyarrow and others), a list of dictionaries, a
    path, bytes, or an open binary file. The path `-` is standard input.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT,
        retries: int | Retries = RETRIES,
        http: "httpx.Client | None" = None,
    ) -> None:
        """Make a client of the service at `url`.

        The defaults of address and key are LINSERVE_URL and LINSERVE_API_KEY in the environment, otherwise the file of
        `linserve config`. `http` is an httpx client with other proxies or certificates, which the caller closes.
        """
        from linserve._http import Address, Transport  # httpx takes 100 ms.

        self._address = Address(url, api_key, timeout)
        self._transport = Transport(self._address, http)
        self._retries = retries if isinstance(retries, Retries) else Retries(retries)

    @property
    def url(self) -> str:
        """The address of the service."""
        return self._address.url

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, plan: Plan[T]) -> T:
        return self._transport.run(plan)

    def _job(self, raw: Mapping[str, Any]) -> Job:
        return Job(raw, self)

    @overload
    def predict(
        self,
        rows: Source,
        *,
        output: Output,
        output_format: str | None = None,
        format: str | None = None,
        **options: Unpack[PredictionOptions],
    ) -> TablePrediction: ...
    @overload
    def predict(
        self,
        rows: Source,
        *,
        output_format: str | None = None,
        format: str | None = None,
        **options: Unpack[PredictionOptions],
    ) -> bytes: ...
    @overload
    def predict(
        self, rows: list[dict[str, Any]], **options: Unpack[PredictionOptions]
    ) -> Predictions[dict[str, float]]: ...
    @overload
    def predict(self, rows: list[list[Any]], **options: Unpack[PredictionOptions]) -> Predictions[list[float]]: ...
    @overload
    def predict(
        self, rows: list[Any] | tuple[Any, ...] | Array, **options: Unpack[PredictionOptions]
    ) -> Predictions[Any]: ...
    @overload
    def predict(self, rows: FrameT, **options: Unpack[PredictionOptions]) -> FrameT: ...
    def predict(
        self,
        rows: Any,
        *,
        output: Output | None = None,
        output_format: str | None = None,
        format: str | None = None,
        **options: Unpack[PredictionOptions],
    ) -> Any:
        """Predict for rows, which may also be lists in the order of the model's features, or an array.

        For a frame, returns a frame of the same kind with the same index. `interval` adds the columns `..._lower` and
        `..._upper`, and `confidence` adds `..._mean_lower` and `..._mean_upper`. For lists and arrays, returns a list
        with attributes. For a file, returns the content of a file, or writes it to `output`, a path or an open file.
        `format` is the format of the rows, and `output_format` the format of the results.
        """
        return self._run(predicting.predict(self._retries, rows, options, Files(format, output, output_format)))

    def train(
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
    ) -> Job:
        """Train a new version on rows, or on the files at a URL such as `s3://bucket/*.parquet`.

        Returns the job at once, or when it has ended, but after `wait` seconds at the latest. Retries of the request
        never start a second job. If the whole program may be repeated, give an `idempotency_key`.
        """
        named = {"targets": targets, "features": features, "terms": terms, "model": model, "promote": promote}
        plan = training.train(self._retries, rows, {**named, **options}, format, JobRequest(wait, idempotency_key))
        return self._job(self._run(plan))

    def update(
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
    ) -> Job:
        """Add rows to those of the current version. `decay` multiplies the weight of earlier rows once per day."""
        named = {"mode": "update", "model": model, "decay": decay, "promote": promote}
        plan = training.train(self._retries, rows, {**named, **options}, format, JobRequest(wait, idempotency_key))
        return self._job(self._run(plan))

    def forget(
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
    ) -> Job:
        """Remove rows from the current version.

        After an update with `decay`, also give `trained_in`, the version that added the rows, or `share`, the share
        of their weight that is left.
        """
        named = {"mode": "forget", "model": model, "trained_in": trained_in, "share": share, "promote": promote}
        plan = training.train(self._retries, rows, {**named, **options}, format, JobRequest(wait, idempotency_key))
        return self._job(self._run(plan))

    def merge(
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
    ) -> Job:
        """Add the rows of version files of other services to a model, or remove them again with mode `forget`."""
        options = {"mode": mode, "promote": promote, "l2": l2, "fit_intercept": fit_intercept}
        options |= {"trained_in": trained_in, "share": share}
        return self._job(
            self._run(training.merge(self._retries, model, files, options, JobRequest(wait, idempotency_key)))
        )

    def inspect(
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
        return self._run(training.train(self._retries, rows, {**named, **options}, format))

    def evaluate(
        self,
        rows: Any,
        model: str,
        *,
        version: int | None = None,
        format: str | None = None,
        **options: Unpack[EvaluationOptions],
    ) -> dict[str, Any]:
        """Return the errors of the model's predictions on rows whose targets are known."""
        return self._run(predicting.evaluate(self._retries, rows, Selection(model, version), options, format))

    def models(self) -> list[ModelSummary]:
        """Return all models, sorted by name."""
        return self._run(models.models(self._retries))

    def card(
        self,
        model: str,
        version: int | None = None,
        *,
        level: float | None = None,
        include: Literal["covariance"] | None = None,
    ) -> dict[str, Any]:
        """Return the card of a version, by default of the current one: coefficients, statistics and history."""
        return self._run(models.card(self._retries, model, version, {"level": level, "include": include}))

    def versions(self, model: str) -> list[int]:
        """Return the numbers of the model's versions."""
        numbers: list[int] = self.card(model)["versions"]
        return numbers

    def promote(self, model: str, version: int) -> dict[str, Any]:
        """Make the version the current one. Return its card."""
        return self._run(models.promote(self._retries, model, version))

    def rollback(self, model: str) -> dict[str, Any]:
        """Promote the newest version before the current one. Return its card.

        Raises PreconditionFailed if the model changes meanwhile.
        """
        return self._run(models.rollback(self._retries, model))

    def delete(self, model: str, version: int | None = None, *, force: bool = False) -> None:
        """Delete a version, or the model with all versions. `force` allows it for the default model."""
        self._run(models.delete(self._retries, model, version, force=force))

    def export(
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
        return self._run(models.export(self._retries, model, version, options, output))

    def import_model(
        self,
        source: Any,
        model: str,
        *,
        features: list[str] | None = None,
        targets: list[str] | None = None,
        promote: Promote = "always",
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Publish a model that was fitted elsewhere as a new version. Return its card.

        `source` is a fitted estimator of scikit-learn, a result of statsmodels, an `nn.Linear`, the path or the bytes
        of a model file, or the dictionary of a model. `features` and `targets` are the names of the columns if the
        estimator does not know them. Raises NotConvertible for an estimator that Linserve cannot serve.
        """
        names = {"features": features, "targets": targets}
        options = {"promote": promote}
        plan = models.import_model(self._retries, model, source, names, options=options, key=idempotency_key)
        return self._run(plan)

    def jobs(
        self,
        *,
        status: Status | None = None,
        model: str | None = None,
        since: str | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Return the newest jobs, at most `limit`."""
        filters = {"status": status, "model": model, "since": since}
        return [self._job(raw) for raw in self._run(training.jobs(self._retries, filters, limit))]

    def job(self, job_id: str = "latest") -> Job:
        """Return a job."""
        return self._job(self._run(training.job(self._retries, job_id)))

    def request(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None) -> Any:
        """Send another request of the HTTP API. Return the JSON of the response."""
        return self._run(models.request(self._retries, method, path, params, json))

    def _follow(self, job: JobView, on_change: Callable[[dict[str, Any]], None], timeout: float | None) -> None:
        self._run(training.follow(self._retries, job.raw, on_change, timeout))

    def _cancel(self, job_id: str) -> dict[str, Any]:
        return self._run(training.cancel(self._retries, job_id))
