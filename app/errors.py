"""The errors that a client can cause or meet. `web/problems.py` has the table of their HTTP statuses.

LinserveError
├── Unauthenticated        no valid API key
├── Forbidden              a key without the scope, or no keys and a client on another machine
├── MalformedBody          the bytes do not match the content type
├── UnsupportedMediaType   the content type of the request is not supported
├── NotAcceptable          none of the accepted content types is supported
├── BodyTooLarge
├── InvalidInput           a value is invalid; the details have the places
│   ├── PredictionTooLarge a prediction exceeds the range of 64-bit numbers
│   ├── ColumnOutOfRange   the values of a column are too large or too small for 64-bit numbers
│   │   ├── ValuesTooLarge
│   │   └── ValuesTooSmall
│   ├── SourceChanged      a file of a source was replaced or removed while a job read it
│   ├── KeyReused          the Idempotency-Key was used for another request
│   └── NotExportable      the format cannot hold this model
├── NotFound
│   ├── ModelNotFound
│   │   └── NoCurrentVersion   the model has versions, but none is current
│   ├── VersionNotFound
│   └── JobNotFound
├── Conflict               not possible in the current state
├── PreconditionFailed     the model has changed since the client read it
├── PreconditionRequired   the If-Match header is missing
├── QueueFull
├── Unavailable            not the client's fault; a retry may succeed
│   ├── ModelFileInvalid   a version's file is truncated, altered or in another format
│   ├── PromotionFailed    a version is published, but `current` cannot be changed
│   ├── StoreUnavailable   the bucket does not answer, or throttles
│   │   └── StoreMisconfigured   no such bucket, no permission, expired credentials or a wrong clock
│   ├── WorkerBusy         other requests use the memory or the turns of this worker
│   └── SpoolFull          the request or the response cannot be stored, because the disk or the limit is full
└── TrainingFailed
    ├── Diverged           gradient descent diverged
    ├── DeviceUnavailable
    ├── MemoryExceeded     the training needs more memory than the trainer may allocate
    ├── TimeExceeded       the training takes longer than a job may
    └── TrainerCrashed     the trainer crashed again and again while running the job
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from app.permissions import why_denied


@dataclass(frozen=True)
class FieldError:
    """One fault and its place: a JSON pointer into the body, a parameter, or a row and column of a file.

    Rows are numbered as in a spreadsheet: the header is row 1. `file` is given if the rows are in several files.
    """

    message: str
    pointer: str | None = None
    row: int | None = None
    column: str | None = None
    parameter: str | None = None
    file: str | None = None


class LinserveError(Exception):
    """Root of the tree.

    The message is for the client: it contains no input and no traceback. The only path in it is that of a folder that
    the service cannot write.
    """

    def __init__(self, message: str, details: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)


class Unauthenticated(LinserveError): ...


class Forbidden(LinserveError): ...


class MalformedBody(LinserveError): ...


class UnsupportedMediaType(LinserveError): ...


class NotAcceptable(LinserveError): ...


class BodyTooLarge(LinserveError): ...


class InvalidInput(LinserveError):
    @classmethod
    def at(cls, pointer: str, message: str) -> "InvalidInput":
        """Return an error at one field of the body."""
        return cls(message, [FieldError(message, pointer=pointer)])

    @classmethod
    def of_parameter(cls, parameter: str, message: str) -> "InvalidInput":
        """Return an error in one parameter of the query."""
        return cls(message, [FieldError(message, parameter=parameter)])


class PredictionTooLarge(InvalidInput):
    """`row` is the index of the first such prediction, counted from 0, and `pointer` the place of all rows."""

    def __init__(self, row: int, pointer: str) -> None:
        message = "The prediction for this instance, or an interval of it, exceeds the range of 64-bit numbers."
        super().__init__(message, [FieldError(message, pointer=f"{pointer}/{row}")])
        self.row = row


class ColumnOutOfRange(InvalidInput): ...


class ValuesTooLarge(ColumnOutOfRange): ...


class ValuesTooSmall(ColumnOutOfRange): ...


class NotFound(LinserveError): ...


class ModelNotFound(NotFound): ...


class NoCurrentVersion(ModelNotFound): ...


class VersionNotFound(NotFound): ...


class JobNotFound(NotFound): ...


class KeyReused(InvalidInput): ...


class NotExportable(InvalidInput): ...


class SourceChanged(InvalidInput):
    """`file` is the file's name."""

    def __init__(self, file: str) -> None:
        message = f"{file}: the file was changed or removed while the job ran. Train again when the files are complete."
        super().__init__(message, [FieldError(message, file=file)])


class Conflict(LinserveError): ...


class PreconditionFailed(LinserveError): ...


class PreconditionRequired(LinserveError): ...


class QueueFull(LinserveError): ...


class Unavailable(LinserveError): ...


class ModelFileInvalid(Unavailable): ...


class PromotionFailed(Unavailable):
    """`version` is the number of the version, which stays published."""

    def __init__(self, version: int, reason: str | None) -> None:
        super().__init__(
            f"Version {version} is published, but could not be promoted. The models folder cannot be written: {reason}."
        )
        self.version = version


class StoreUnavailable(Unavailable):
    """The message has the URL of the store, without credentials."""


class StoreMisconfigured(StoreUnavailable): ...


class WorkerBusy(Unavailable): ...


class SpoolFull(Unavailable): ...


def not_stored(subject: str, error: OSError) -> Unavailable:
    """Map a failed write to SpoolFull if the disk is full, otherwise to Unavailable."""
    error_type = SpoolFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else Unavailable
    return error_type(why_denied(error) or f"{subject} cannot be stored: {error.strerror}.")


class TrainingFailed(LinserveError): ...


class Diverged(TrainingFailed): ...


class DeviceUnavailable(TrainingFailed): ...


class MemoryExceeded(TrainingFailed): ...


class TimeExceeded(TrainingFailed): ...


class TrainerCrashed(TrainingFailed): ...
