"""The errors of the client. Those of the service have the names of its problems (docs/reference/errors.md).

LinserveError
├── ConnectionFailed           no response: the service cannot be reached, or the connection broke
├── WaitTimeout                a job did not end in the time given to `wait`
├── NotConvertible             a fitted estimator that Linserve cannot serve
├── UnreadableRows             rows that cannot be sent
├── JobFailed                  a job failed; it has the problem that the job ended with
│   └── JobCancelled
└── ServiceError               the service responded with a problem
    ├── Unauthenticated        no valid API key
    ├── Forbidden              the key lacks the scope
    ├── MalformedBody
    ├── UnsupportedMediaType
    ├── NotAcceptable
    ├── BodyTooLarge
    ├── InvalidInput           a value is invalid; `details` has the places
    │   ├── PredictionTooLarge
    │   ├── ColumnOutOfRange
    │   │   ├── ValuesTooLarge
    │   │   └── ValuesTooSmall
    │   ├── SourceChanged
    │   ├── KeyReused
    │   └── NotExportable
    ├── NotFound
    │   ├── ModelNotFound
    │   │   └── NoCurrentVersion
    │   ├── VersionNotFound
    │   └── JobNotFound
    ├── Conflict
    ├── PreconditionFailed
    ├── PreconditionRequired
    ├── QueueFull
    ├── TrainingFailed         only as the cause of a JobFailed
    │   ├── Diverged
    │   ├── DeviceUnavailable
    │   ├── MemoryExceeded
    │   ├── TimeExceeded
    │   └── TrainerCrashed
    └── Unavailable            temporarily; the client has already tried again
        ├── ModelFileInvalid
        ├── PromotionFailed
        ├── StoreUnavailable
        │   └── StoreMisconfigured
        ├── WorkerBusy
        └── SpoolFull
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

_KIND = "urn:linserve:problem:"
# JSON pointer to a row in the body, or to a value in it. In a row without names, the value has a position.
_IN_ROWS = re.compile(r"/instances/([0-9]{1,18})(?:/([^/]*).*)?", re.DOTALL)


@dataclass(frozen=True)
class Detail:
    """One fault, and its place in the request or in the rows.

    Rows of lists and frames are counted from 1. In a file, the header is row 1.
    """

    message: str
    pointer: str | None = None  # JSON pointer into the body
    parameter: str | None = None
    file: str | None = None
    row: int | None = None
    column: str | None = None  # None also for a value in a row without names: `pointer` has its position

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return a fault in a problem. Its row and column are those of its pointer if it points into rows."""
        places = {place: value.get(place) for place in ("pointer", "parameter", "file", "row", "column")}
        if places["row"] is None and (found := _IN_ROWS.fullmatch(str(places["pointer"]))):
            index, name = found.groups()
            places["row"] = int(index) + 1
            if name is not None and not name.isdecimal():
                places["column"] = name.replace("~1", "/").replace("~0", "~")
        return cls(str(value.get("detail", "")), **places)

    @property
    def place(self) -> str:
        """The place in words; empty if it is not known."""
        parts = [self.file, None if self.row is None else f"row {self.row}"]
        parts.append(None if self.column is None else f"column {self.column!r}")
        known = ", ".join(part for part in parts if part)
        return self.pointer or known or (f"parameter {self.parameter!r}" if self.parameter else "")

    def is_placed_in(self, text: str) -> bool:
        """Return True if the text has all of the place."""
        parts = (self.pointer,) if self.pointer else (self.file, self.row, self.column, self.parameter)
        return all(str(part) in text for part in parts if part is not None)


@dataclass(frozen=True)
class Problem:
    """A problem as the service describes it (RFC 9457)."""

    kind: str  # such as `invalid-input`; empty if the response came from something else, such as a proxy
    title: str
    status: int
    detail: str
    details: tuple[Detail, ...] = ()
    request_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the problem as JSON has it."""
        details = [
            {
                "detail" if name == "message" else name: value
                for name, value in vars(detail).items()
                if value is not None
            }
            for detail in self.details
        ]
        fields = {"type": f"{_KIND}{self.kind}" if self.kind else "about:blank", "title": self.title}
        rest = {"status": self.status, "detail": self.detail, "errors": details, "request_id": self.request_id}
        return {**fields, **{name: value for name, value in rest.items() if value not in (None, [])}}

    def __str__(self) -> str:
        """Return the sentence, and the place of each fault that the sentence does not name."""
        lines = [self.detail]
        for detail in self.details:
            place = detail.place
            if detail.message in self.detail:
                lines[0] += f" ({place})" if not detail.is_placed_in(self.detail) else ""
            else:
                lines.append(f"  {place}: {detail.message}" if place else f"  {detail.message}")
        return "\n".join(lines)


class LinserveError(Exception):
    """Base of all errors. `problem` is the problem that the service sent, or None."""

    problem: Problem | None = None


class ConnectionFailed(LinserveError):
    """No response. `sent`: the service may have received the request. `timed_out`: it did not respond in time."""

    def __init__(self, message: str, *, sent: bool = False, timed_out: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.timed_out = timed_out


class WaitTimeout(LinserveError, TimeoutError): ...


class NotConvertible(LinserveError, TypeError): ...


class UnreadableRows(LinserveError, ValueError): ...


class JobFailed(LinserveError):
    """`problem` is the reason, and `job` the id of the job."""

    def __init__(self, job: str, problem: Problem) -> None:
        super().__init__(f"Job {job} failed: {problem}")
        self.job = job
        self.problem: Problem = problem

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.job, self.problem)


class JobCancelled(JobFailed):
    def __init__(self, job: str, problem: Problem | None = None) -> None:
        super().__init__(job, problem or Problem("", "Cancelled", 409, "The job was cancelled."))
        self.args = (f"Job {job} was cancelled.",)


class ServiceError(LinserveError):
    """The service responded with a problem. `retry_after` is the number of seconds in its Retry-After header."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(str(problem))
        self.problem: Problem = problem
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problem, self.retry_after)

    @property
    def status(self) -> int:
        return self.problem.status

    @property
    def details(self) -> tuple[Detail, ...]:
        return self.problem.details

    @property
    def request_id(self) -> str | None:
        """The request id, which is also in the log of the service."""
        return self.problem.request_id


class Unauthenticated(ServiceError): ...


class Forbidden(ServiceError): ...


class MalformedBody(ServiceError): ...


class UnsupportedMediaType(ServiceError): ...


class NotAcceptable(ServiceError): ...


class BodyTooLarge(ServiceError): ...


class InvalidInput(ServiceError): ...


class PredictionTooLarge(InvalidInput): ...


class ColumnOutOfRange(InvalidInput): ...


class ValuesTooLarge(ColumnOutOfRange): ...


class ValuesTooSmall(ColumnOutOfRange): ...


class SourceChanged(InvalidInput): ...


class KeyReused(InvalidInput): ...


class NotExportable(InvalidInput): ...


class NotFound(ServiceError): ...


class ModelNotFound(NotFound): ...


class NoCurrentVersion(ModelNotFound): ...


class VersionNotFound(NotFound): ...


class JobNotFound(NotFound): ...


class Conflict(ServiceError): ...


class PreconditionFailed(ServiceError): ...


class PreconditionRequired(ServiceError): ...


class QueueFull(ServiceError): ...


class TrainingFailed(ServiceError): ...


class Diverged(TrainingFailed): ...


class DeviceUnavailable(TrainingFailed): ...


class MemoryExceeded(TrainingFailed): ...


class TimeExceeded(TrainingFailed): ...


class TrainerCrashed(TrainingFailed): ...


class Unavailable(ServiceError): ...


class ModelFileInvalid(Unavailable): ...


class PromotionFailed(Unavailable): ...


class StoreUnavailable(Unavailable): ...


class StoreMisconfigured(StoreUnavailable): ...


class WorkerBusy(Unavailable): ...


class SpoolFull(Unavailable): ...


# For a problem that has no class of its own, and for a response that is not a problem.
_BY_STATUS: dict[int, type[ServiceError]] = {
    400: MalformedBody,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    406: NotAcceptable,
    409: Conflict,
    412: PreconditionFailed,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
    422: InvalidInput,
    428: PreconditionRequired,
    429: QueueFull,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
    507: SpoolFull,
}


def _subclasses(parent: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for child in parent.__subclasses__():
        yield child
        yield from _subclasses(child)


_BY_KIND = {"-".join(re.findall("[A-Z][a-z]*", made.__name__)).lower(): made for made in _subclasses(ServiceError)}


def problem_from_json(value: Mapping[str, Any]) -> Problem:
    """Return the problem in a response or in a job."""
    details = tuple(map(Detail.from_json, value.get("errors", ())))
    return Problem(
        str(value.get("type", "")).removeprefix(_KIND),
        str(value.get("title", "")),
        int(value.get("status", 0)),
        str(value.get("detail", "")),
        details,
        value.get("request_id"),
    )


def error_from_problem(problem: Problem, retry_after: float | None = None) -> ServiceError:
    """Return the error of the class that the problem names, or that its status implies."""
    made = _BY_KIND.get(problem.kind) or _BY_STATUS.get(problem.status, ServiceError)
    return made(problem, retry_after)
